"""Which sessions have a run in MLflow that has to be ended, or need one: the ledger's table `recording`."""

from __future__ import annotations

from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database

UNTRAINED = "untrained:"
"""In the place of a container's id, before the id of a run: its session failed and nothing of it was trained."""


class Recordings(Database):
    """The rows, one for each container that trains. They outlive the processes that write MLflow's runs."""

    def add(self, key: SessionKey, container_id: str) -> None:
        """Note that a container's training has a run in MLflow, or is about to get one. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_RECORDING, (container_id, *key))

    def add_untrained(self, key: SessionKey) -> None:
        """Note that a session failed without a training, so that nothing of it is in MLflow yet. Idempotent."""
        self.add(key, f"{UNTRAINED}{key.run_id}")

    def all(self) -> dict[str, SessionKey]:
        """Return the session of each container that was noted, and of each that has none, the oldest first."""
        return {row["container_id"]: SessionKey(row["dag_id"], row["run_id"]) for row in self.rows(sql.RECORDINGS)}

    def remove(self, container_id: str) -> None:
        """Forget a container, since its run in MLflow has ended. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.REMOVE_RECORDING, (container_id,))

    def keep_untrained_run(self, key: SessionKey, experiment_id: str, mlflow_run_id: str) -> None:
        """Keep which run in MLflow says that a session failed before its training. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.KEEP_UNTRAINED_RUN, (*key, experiment_id, mlflow_run_id))

    def untrained_run(self, key: SessionKey) -> tuple[str, str] | None:
        """Return the ids of that run's experiment and of the run; None: there is none."""
        return next(((row["experiment_id"], row["mlflow_run_id"]) for row in self.rows(sql.UNTRAINED_RUN, key)), None)
