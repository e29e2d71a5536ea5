"""MLflow: recording a model, fetching one, and loading a registered one to predict."""
