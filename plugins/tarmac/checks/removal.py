"""Removes stored files and registered versions that nothing needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tarmac.base.errors import InUseError
from tarmac.base.settings import settings
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.registry import tags as tag
from tarmac.registry.client import PRODUCTION, Registry, Run, Version
from tarmac.request import datasets, stored
from tarmac.request.catalogue import stored_weights

_NAMED = 3
"""Of those that need something, as many are named."""

Requests = Mapping[str, Mapping[str, Any]]
"""The requests of the sessions that are under way, by id."""


def sessions_with_file(reference: str, requests: Requests) -> list[str]:
    """Return the sessions whose request names a file of the store. Pure."""

    def named(request: Mapping[str, Any]) -> Iterable[object]:
        yield request.get("script")
        yield stored_weights(request.get("base_model"))
        run = request.get("run")
        yield run.get("code") if isinstance(run, Mapping) else None
        sets = request.get("datasets")
        for one in sets.values() if isinstance(sets, Mapping) else ():
            if isinstance(one, Mapping):
                yield from (one.get("train"), one.get("eval"))

    return [run_id for run_id, request in requests.items() if reference in named(request)]


def versions_with_file(reference: str, versions: Iterable[tuple[Version, Run | None]]) -> list[str]:
    """Return the versions in production that were trained on a file, or by it. Pure.

    Args:
        versions: all registered ones, with their MLflow runs where those are known.
    """
    data_id = reference.partition("/")[0]
    return [
        f"{version.name}/{version.version}"
        for version, run in versions
        if PRODUCTION in version.aliases
        and (
            data_id in version.tags.get(tag.DATASETS, "").split(",")
            or (run is not None and run.tags.get(tag.SCRIPT) == reference)
        )
    ]


def sessions_with_base(version: Version, requests: Requests) -> list[str]:
    """Return the sessions under way that train on from a version. Pure."""
    names = {f"{version.name}/{version.version}", f"run:{version.tags.get(tag.RUN_ID)}"}
    return [run_id for run_id, request in requests.items() if request.get("base_model") in names]


def refuse(what: str, needed: Sequence[str], why: str, *, of_many: str) -> None:
    """Raise an error if something is needed. Pure.

    Args:
        needed: by these.
        why: goes on after the name of one.
        of_many: after several names.

    Raises:
        InUseError: it is.
    """
    if needed:
        said = why if len(needed) == 1 else of_many
        more = f" and {len(needed) - _NAMED} more" if len(needed) > _NAMED else ""
        raise InUseError(f"{what} is still needed: {', '.join(needed[:_NAMED])}{more} {said}. Nothing was removed.")


def under_way() -> Requests:
    """Return the requests of the sessions that are under way.

    Raises:
        AirflowStateError: Airflow's database does not answer.
    """
    state = AirflowState(database_url())
    try:
        return state.requests_under_way()
    finally:
        state.close()


def remove_file(name: str) -> dict[str, Any]:
    """Remove a file of the store.

    Returns:
        Its `reference` and `size` in bytes.

    Raises:
        LookupError: it is not there.
        InUseError: a session that is under way, or a model in production, needs it.
        DatasetError: the store refuses.
    """
    reference, store = stored.reference_of(name), settings().store_url
    found = stored.facts(reference, store)
    if found is None:
        raise LookupError(f"There is no file {name!r} in the data set store.")
    refuse(name, sessions_with_file(reference, under_way()), "trains with it", of_many="train with it")
    registry = Registry()
    versions = [version for version in registry.all_versions(registry.models()) if PRODUCTION in version.aliases]
    refuse(
        name,
        versions_with_file(reference, [(version, registry.run(version.run_id)) for version in versions]),
        "is in production and was made with it: without it, it cannot be reproduced",
        of_many="are in production and were made with it: without it, they cannot be reproduced",
    )
    datasets.remove(reference, store)
    return {"reference": reference, "size": found["size"]}


def remove_version(model: str, number: int) -> dict[str, Any]:
    """Remove a registered version and, unless another version is the same, the files of its model.

    Returns:
        `model`, `version`, and `files`, whether the files were removed too.

    Raises:
        UnknownModelError: there is no such version.
        InUseError: it is in production, or what another model was, or is being, trained on from.
        RegistryError: MLflow refuses or does not answer.
    """
    registry = Registry()
    version = registry.version(model, number)
    name = f"{model}/{number}"
    if version.aliases:
        raise InUseError(
            f"{name} is in production ({', '.join(version.aliases)}): put another version there first. Nothing was "
            "removed."
        )
    refuse(name, sessions_with_base(version, under_way()), "trains on from it", of_many="train on from it")
    trained = {run.run_id for run in registry.find_runs(tag.BASE_MODEL, name)}
    others = [one for one in registry.all_versions(registry.models()) if one != version]
    children = [f"{one.name}/{one.version}" for one in others if one.run_id in trained]
    refuse(
        name,
        children,
        "was trained on from it: remove that first",
        of_many="were trained on from it: remove those first",
    )
    shared = any(one.source == version.source for one in others)
    registry.delete_version(version, files=not shared)
    return {"model": model, "version": number, "files": not shared}
