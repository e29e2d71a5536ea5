"""The files in MLflow that nothing needs any more: which those are, how much they take, and how they are removed.

A run keeps its record there (metrics, parameters, tags); only its files and those of the models it saved go.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tarmac.base.texts import counted
from tarmac.base.units import format_size
from tarmac.registry import tags as tag
from tarmac.registry.client import Registry, Run, read_run

MEASURED = 200
"""Runs whose files are measured at most when they are only looked at: that takes MLflow some calls for each."""

_DAY_SECONDS = 86400
_PIECE = 20
_MODEL = re.compile(r"\bm-[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Needs:
    """What refers to runs and to saved models.

    Attributes:
        runs: the MLflow runs of all registered versions, of whatever state.
        sources: where the models of these versions are.
        bases: what sessions under way train on from, as their requests name it.
    """

    runs: Collection[str] = ()
    sources: Collection[str] = ()
    bases: Collection[str] = ()


@dataclass(frozen=True)
class Expired:
    """How much nothing needs any more: `runs` whose files may go, `models` they saved, `size` in bytes.

    `measured`: how many of the runs the size is of.
    """

    runs: int = 0
    models: int = 0
    size: int = 0
    measured: int = 0

    def __add__(self, other: Expired) -> Expired:
        """Add what is counted."""
        return Expired(
            self.runs + other.runs,
            self.models + other.models,
            self.size + other.size,
            self.measured + other.measured,
        )

    @property
    def sentence(self) -> str:
        """What it is, in a clause; "": nothing."""
        if not self.runs:
            return ""
        models = f" with {counted(self.models, 'saved model')}" if self.models else ""
        least = "at least " if self.measured < self.runs else ""
        return f"files of {counted(self.runs, 'run')}{models} in MLflow, {least}{format_size(self.size)}"


@dataclass(frozen=True)
class Inventory:
    """What MLflow has: `runs`, deleted ones too, and of each run the places of the models it saved, by their ids."""

    runs: Sequence[Run] = ()
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def session_of(run: Run) -> str:
    """Return the session that an MLflow run is of; "": none of Tarmac's. Pure."""
    return run.tags.get(tag.RUN_ID) or run.tags.get(tag.CURVES_OF) or ""


def unneeded(inventory: Inventory, needs: Needs, *, before: float) -> list[Run]:
    """Return the runs whose files nothing needs. Pure.

    Needed is what a registered version refers to, by its run or its source; every other run of the same session; and
    what one of these, or a session under way, was trained on from. Runs that are none of Tarmac's are left alone, and
    so are those that have not ended.

    Args:
        before: in seconds since 1970: what ended since then stays.
    """
    named = {found for source in needs.sources for found in _MODEL.findall(source)}
    needed = {run_id for run_id, saved in inventory.models.items() if named & saved.keys()} | set(needs.runs)
    needed |= {run.run_id for run in inventory.runs if any(run.run_id in source for source in needs.sources)}
    bases, added = set(needs.bases), True
    while added:
        kept = [run for run in inventory.runs if run.run_id in needed]
        sessions = {session_of(run) for run in kept} - {""}
        bases |= {run.tags[tag.BASE_MODEL] for run in kept if tag.BASE_MODEL in run.tags}
        more = {
            run.run_id
            for run in inventory.runs
            if session_of(run) in sessions
            or bases & {run.tags.get(tag.MODEL_VERSION), f"run:{session_of(run)}", f"run:{run.run_id}"}
        }
        added = not more <= needed
        needed |= more
    return [
        run
        for run in inventory.runs
        if run.run_id not in needed
        and session_of(run)
        and tag.EXPIRED not in run.tags
        and run.ended is not None
        and run.ended < before
    ]


def look(registry: Registry, bases: Collection[str], days: int) -> Expired:
    """Return what `remove` would remove now. Changes nothing.

    Args:
        bases: what sessions under way train on from, as their requests name it.

    Raises:
        RegistryError: MLflow does not answer.
    """
    found = Expired()
    there = inventory(registry)
    for run in unneeded(there, needs(registry, bases), before=_before(days)):
        saved = there.models.get(run.run_id, {})
        found += _measure(registry, run, saved) if found.measured < MEASURED else Expired(1, len(saved))
    return found


def remove(registry: Registry, bases: Callable[[], Collection[str]], days: int, pause: Callable[[], bool]) -> Expired:
    """Remove the files that nothing has needed for so many days; return what was removed. Idempotent.

    What refers to a run is asked for again before every few of them, since a version may be registered meanwhile. Of a
    run whose model a session may take instead of training, the first call only sees to it that no other one does.

    Args:
        bases: asks what sessions under way train on from.
        pause: called after each run; True: end.

    Raises:
        RegistryError: MLflow does not answer; what is left goes the next time.
        TarmacError: what `bases` raises.
    """
    found, before = Expired(), _before(days)
    there = inventory(registry)
    todo = unneeded(there, needs(registry, bases()), before=before)
    for start in range(0, len(todo), _PIECE):
        still = {run.run_id for run in unneeded(there, needs(registry, bases()), before=before)}
        for run in todo[start : start + _PIECE]:
            if run.run_id not in still:
                continue
            found += _remove(registry, run, there.models.get(run.run_id, {}))
            if pause():
                return found
    return found


def _before(days: int) -> float:
    return time.time() - days * _DAY_SECONDS


def places(run: Run, saved: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return where the files of a run and of the models that it saved are; "": not in a place of their own. Pure.

    Args:
        saved: the places of its models, by their ids.
    """
    own = run.files if run.run_id in run.files.split("/") else ""
    return own, [place for model_id, place in saved.items() if model_id in place.split("/")]


def _measure(registry: Registry, run: Run, saved: Mapping[str, str]) -> Expired:
    """Return what there is of a run: nothing where it has no files."""
    files, models = places(run, saved)
    own = registry.size_of_files(files)
    sizes = [size for place in models if (size := registry.size_of_files(place))]
    return Expired(1, len(sizes), own + sum(sizes), 1) if own or sizes else Expired()


def _remove(registry: Registry, run: Run, saved: Mapping[str, str]) -> Expired:
    if tag.CACHE_KEY in run.tags and not run.deleted:
        # A session may be about to take its model instead of training. No other one does from now on; the files go the
        # next time.
        registry.call("POST", "/runs/delete-tag", {"run_id": run.run_id, "key": tag.CACHE_KEY})
        return Expired()
    found = _measure(registry, run, saved)
    if found.runs:
        own, models = places(run, saved)
        for place in (*models, own):
            registry.remove_files(place)
    if not run.deleted:  # of a deleted one MLflow takes no tag
        registry.tag_run(run.run_id, {tag.EXPIRED: datetime.now(UTC).date().isoformat()})
    return found


def inventory(registry: Registry) -> Inventory:
    """Return Tarmac's runs in MLflow, deleted ones too, and the models that they saved.

    Raises:
        RegistryError: MLflow does not answer.
    """
    listed = registry.pages("POST", "/experiments/search", "experiments", {"view_type": "ALL"})
    runs: list[Run] = []
    models: dict[str, dict[str, str]] = {}
    for experiment in [str(one["experiment_id"]) for one in listed]:
        asked = {"experiment_ids": [experiment], "run_view_type": "ALL"}
        runs += [read_run(one) for one in registry.pages("POST", "/runs/search", "runs", asked)]
        saved = registry.pages("POST", "/logged-models/search", "models", {"experiment_ids": [experiment]})
        for info in (one["info"] for one in saved):
            models.setdefault(str(info.get("source_run_id", "")), {})[str(info["model_id"])] = str(info["artifact_uri"])
    return Inventory([run for run in runs if session_of(run)], models)


def needs(registry: Registry, bases: Collection[str]) -> Needs:
    """Return what refers to runs and saved models: each registered version, also one that is not ready.

    Raises:
        RegistryError: MLflow does not answer.
    """
    versions = list(registry.pages("GET", "/model-versions/search", "model_versions", {}))
    return Needs(
        {str(one["run_id"]) for one in versions if one.get("run_id")},
        {str(one.get(key, "")) for one in versions for key in ("source", "storage_location", "model_id")},
        bases,
    )
