"""What runs inside Airflow: the request, the containers, the registry, the data set store."""
