"""Training again from what a session left in MLflow: the request that does so, and whether the metrics match."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tarmac.base.errors import UnknownModelError
from tarmac.registry import tags as tag
from tarmac.registry.client import Registry, Run
from tarmac.registry.origins import REQUEST_RECORD, session_run

_SUFFIX = "-reproduced"


@dataclass(frozen=True)
class Repetition:
    """What repeats a session: `of` is its id where it is known, `request` what is to be sent."""

    of: str
    request: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Whether a repetition gave the same metrics: one sentence for each that differs, and for each circumstance."""

    matches: bool
    metrics: list[str]
    circumstances: list[str]


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


def mismatches(recorded: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Name the metrics that differ between a record and a repetition, each with both values.

    Equal means equal to nine decimals: the registry stores floats, and a repetition on a CPU is exact.
    """
    return [
        f"{name}: {_value(recorded.get(name))} in the record, {_value(found.get(name))} now"
        for name in sorted({*recorded, *found})
        if name not in recorded or name not in found or round(recorded[name] - found[name], 9) != 0
    ]


def _value(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"


def repetition(registry: Registry, run_id: str) -> Repetition:
    """Return what repeats a session.

    Args:
        run_id: an Airflow run's id, or an MLflow run's.

    Raises:
        UnknownModelError: there is no record of such a run, or it was never scored.
        RegistryError: MLflow refused or does not answer.
    """
    record = _scored(registry, run_id)
    return Repetition(record.tags.get(tag.RUN_ID, run_id), again(registry.record(record, REQUEST_RECORD)))


def verdict(registry: Registry, run_id: str, repetition_id: str) -> Verdict:
    """Compare a session with its repetition, which has ended well.

    Args:
        run_id, repetition_id: ids of Airflow's runs, or of MLflow's.

    Raises: as `repetition`.
    """
    record, now = _scored(registry, run_id), _scored(registry, repetition_id)
    wrong = mismatches(json.loads(record.tags[tag.METRICS]), json.loads(now.tags[tag.METRICS]))
    return Verdict(not wrong, wrong, differences(record, now))


def _scored(registry: Registry, run_id: str) -> Run:
    record = session_run(registry, run_id)
    if tag.METRICS not in record.tags:
        raise UnknownModelError(f"The run {run_id!r} was never scored: there are no metrics to compare with.")
    return record
