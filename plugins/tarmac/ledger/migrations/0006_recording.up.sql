-- Which trainings have a run in MLflow that someone has to end. The training's task writes a row before it begins the
-- run; the reaper ends what is still running there when the session is over, and removes the row.
CREATE TABLE recording (
    container_id text PRIMARY KEY CHECK (container_id <> ''),
    dag_id text NOT NULL,
    run_id text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
