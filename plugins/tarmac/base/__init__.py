"""What everything else stands on: errors, settings, names of sessions, units, Airflow's REST API."""
