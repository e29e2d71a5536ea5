"""Task train_model_cpu: trains, or fetches the model that the same training gave before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tarmac.base.errors import ContainerError
from tarmac.tasks.container_operator import TrainingContainerOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

FETCH, TRAIN = "restore", "train"
"""Commands of the trainer contract."""


class CachedTrainingOperator(TrainingContainerOperator):
    """Trains after all where the earlier model cannot be fetched: its files may be deleted at any moment.

    An attempt that finds the container of a training that was begun so follows it, as every attempt does.
    """

    def run_step(self, context: Context) -> Any:
        """Do what execute does, with ContainerError for every failure."""
        try:
            return super().run_step(context)
        except ContainerError as error:
            if self.command != [FETCH] or (error.retryable and self.may_repeat(context)):
                raise
            if self.request["gpu"]:
                # This branch has no GPU, and a model that was trained on a CPU is another one.
                raise ContainerError(
                    "The model of the same training cannot be taken, so send the request again with no_cache true: "
                    f"{error}",
                    retryable=False,
                ) from error
            self.log.warning(
                "The model of the same training cannot be taken, so it is trained anew (as with no_cache: true): %s",
                error,
            )
        self.command, self.network_mode = [TRAIN], "none"
        return super().run_step(context)
