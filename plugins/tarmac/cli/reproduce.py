"""Train again from what a session left in MLflow, and compare."""

from __future__ import annotations

import json
from typing import Any

from tarmac.base.airflow_api import log_in
from tarmac.base.errors import ExitCode, UnknownModelError
from tarmac.cli.follow import follow_run
from tarmac.cli.model_tables import mismatches
from tarmac.registry import tags as tag
from tarmac.registry.client import Registry, Run
from tarmac.registry.origins import REQUEST_RECORD, session_run

_SUFFIX = "-reproduced"


def again(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request that repeats a recorded one: trained anew, under a name of its own, never promoted. Pure."""
    name = (request.get("name") or request["model"]).removesuffix(_SUFFIX)
    return {**request, "name": name[: 64 - len(_SUFFIX)] + _SUFFIX, "no_cache": True, "promote": "never"}


def differences(record: Run, now: Run) -> list[str]:
    """Name what was not the same in two trainings: data, device, image. Pure."""
    pairs = {
        name: (record.params.get(name), now.params.get(name))
        for name in sorted({*record.params, *now.params})
        if name.startswith("data.") or name == "device"
    }
    pairs["image"] = (record.tags.get(tag.IMAGE), now.tags.get(tag.IMAGE))
    return [f"{name}: {old} in the record, {new} now" for name, (old, new) in pairs.items() if old != new]


def reproduce_run(run_id: str) -> int:
    """Repeat a run's training and print whether its metrics match. Returns 0 if they do, 1 if not.

    Args:
        run_id: an Airflow run's id, or an MLflow run's.

    Raises:
        UnknownModelError: there is no record of such a run, or it was never scored.
        RegistryError, ApiError: MLflow or Airflow refused or does not answer.
    """
    registry = Registry()
    record = session_run(registry, run_id)
    if tag.METRICS not in record.tags:
        raise UnknownModelError(f"The run {run_id!r} was never scored: there are no metrics to compare with.")
    request = again(registry.record(record, REQUEST_RECORD))
    api = log_in()
    repetition = api.trigger(request)
    print(f"Repeating {record.tags.get(tag.RUN_ID, run_id)} from its record, as run {repetition}", flush=True)
    if follow_run(api, repetition) != 0:
        print("The repetition failed, so nothing was compared.")
        return ExitCode.RUN_FAILED
    now = session_run(registry, repetition)
    for line in differences(record, now):
        print(f"  not the same: {line}")
    wrong = mismatches(json.loads(record.tags[tag.METRICS]), json.loads(now.tags[tag.METRICS]))
    for line in wrong:
        print(f"  {line}")
    print("The metrics do not match." if wrong else "The metrics match.")
    return 1 if wrong else 0
