"""Train again from what a session left in MLflow, follow it, and compare."""

from __future__ import annotations

from tarmac.base.airflow_api import log_in
from tarmac.base.errors import ExitCode
from tarmac.cli.follow import follow_run
from tarmac.registry.client import Registry
from tarmac.registry.repetition import repetition, verdict


def reproduce_run(run_id: str) -> int:
    """Repeat a run's training and print whether its metrics match. Returns 0 if they do, 1 if not.

    Args:
        run_id: an Airflow run's id, or an MLflow run's.

    Raises:
        UnknownModelError: there is no record of such a run, or it was never scored.
        RegistryError, ApiError: MLflow or Airflow refused or does not answer.
    """
    registry = Registry()
    wanted = repetition(registry, run_id)
    api = log_in()
    repeated = api.trigger(wanted.request)
    print(f"Repeating {wanted.of} from its record, as run {repeated}", flush=True)
    if follow_run(api, repeated) != 0:
        print("The repetition failed, so nothing was compared.")
        return ExitCode.RUN_FAILED
    found = verdict(registry, run_id, repeated)
    for line in found.circumstances:
        print(f"  not the same: {line}")
    for line in found.metrics:
        print(f"  {line}")
    print("The metrics match." if found.matches else "The metrics do not match.")
    return 0 if found.matches else 1
