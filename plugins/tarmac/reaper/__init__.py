"""What the scheduler's container runs beside Airflow: the supervisor, and the reaper with its rule for orphans."""
