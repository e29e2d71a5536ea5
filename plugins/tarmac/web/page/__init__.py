"""The Tarmac page inside Airflow's UI: HTML made of what the API answers."""
