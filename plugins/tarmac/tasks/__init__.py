"""What Airflow runs: operators, the sensor, triggers, the Python tasks, links."""
