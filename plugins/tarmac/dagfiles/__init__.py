"""DAG files that people upload (docs/dags.md)."""
