"""The SQL by which old runs and rows of Airflow's own database are found and removed: one named statement each."""

from __future__ import annotations

# Each statement sees what others have committed: a run that is cleared meanwhile is not over any more.
WRITE = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE"

# A run that was marked by hand still runs its clean-up. Of what a schedule started, Airflow goes by the newest run.
_OLD_RUNS = """FROM dag_run AS run
    WHERE run.state = ANY(%(over)s) AND run.end_date < now() - make_interval(days => %(days)s)
    AND NOT EXISTS (SELECT FROM task_instance AS task WHERE task.dag_id = run.dag_id AND task.run_id = run.run_id
        AND task.state <> ALL(%(finished)s))
    AND (run.run_type = 'manual' OR EXISTS (SELECT FROM dag_run AS newer WHERE newer.dag_id = run.dag_id
        AND newer.run_type = run.run_type AND newer.run_after > run.run_after))"""

OLD_RUNS = f"SELECT run.dag_id, run.run_id {_OLD_RUNS}"

REMOVE_OLD_RUNS = f"""
DELETE FROM dag_run WHERE id IN (
    SELECT run.id {_OLD_RUNS} ORDER BY run.end_date LIMIT %(most)s FOR UPDATE SKIP LOCKED)
"""

# What grows beside the runs: the table, its key, and when a row is old.
_OLD_ROWS = (
    ("log", "id", "dttm < now() - make_interval(days => %(days)s)"),
    ("session", "id", "expiry < now() AT TIME ZONE 'UTC' - make_interval(days => %(days)s)"),
    ("revoked_token", "jti", "exp < now() - make_interval(days => %(days)s)"),
)

COUNT_OLD_ROWS = tuple(f"SELECT count(*) FROM {table} WHERE {old}" for table, _, old in _OLD_ROWS)

REMOVE_OLD_ROWS = tuple(
    f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {old} LIMIT %(most)s)"
    for table, key, old in _OLD_ROWS
)
