"""MLflow: registered models, base models and cached trainings, promotion and its history."""
