-- The run in MLflow of a session that failed before its training. The run of a training stands with its task in Airflow.
CREATE TABLE untrained_run (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    experiment_id text NOT NULL,
    mlflow_run_id text NOT NULL,
    PRIMARY KEY (dag_id, run_id)
);
