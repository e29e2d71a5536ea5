"""The old path of the trigger: Airflow stores it with a task that was deferred before the upgrade."""

from tarmac.tasks.gpu_trigger import ReservationTrigger

__all__ = ["ReservationTrigger"]
