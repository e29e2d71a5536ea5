"""What Celery is told beside what Airflow tells it; Airflow's celery_config_options names it."""

from __future__ import annotations

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from sqlalchemy.pool import NullPool

OPTIONS = {
    **DEFAULT_CELERY_CONFIG,
    # A worker that has lost its broker waits for it, however long; and its tasks go on.
    "broker_connection_max_retries": None,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # Each process of a worker writes two rows a task: none keeps a connection in between. Postgres takes 100 in all.
    "database_engine_options": {"poolclass": NullPool},
}
