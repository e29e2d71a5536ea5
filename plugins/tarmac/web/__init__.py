"""The API inside Airflow's webserver."""
