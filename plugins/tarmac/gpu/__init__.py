"""Old paths of classes that Airflow's database stores; kept for one release."""
