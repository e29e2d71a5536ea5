"""Tarmac's own scheduling of GPU sessions (not Airflow's scheduler): the admission cycle and its overview."""
