"""What people do with registered models, for the make targets and for the API alike."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime

from tarmac.base.errors import RegistryError, UnknownModelError
from tarmac.base.settings import settings
from tarmac.registry.client import Registry
from tarmac.registry.facts import Trained
from tarmac.registry.origins import REQUEST_RECORD
from tarmac.registry.production import Production
from tarmac.registry.promotion import Step

NO_REASON = "no reason was given"


def parse_version(text: str) -> tuple[str, int]:
    """Split `name/3`. Pure.

    Raises:
        UnknownModelError: it is not written so.
    """
    match = re.fullmatch(r"(.+)/([1-9]\d{0,8})", text)
    if match is None:
        raise UnknownModelError(f"{text!r} names no version: write name/number, for example test_model/1.")
    return match[1], int(match[2])


def trained(registry: Registry, text: str) -> Trained:
    """Return a version, written `name/3`, with what its session recorded, as far as that is still there.

    Raises:
        UnknownModelError: there is no such version.
    """
    version = registry.version(*parse_version(text))
    try:
        run = registry.run(version.run_id)
    except UnknownModelError:
        return Trained(version, None, None)
    try:
        return Trained(version, run, registry.record(run, REQUEST_RECORD))
    except UnknownModelError:  # another program's run, or its files were deleted
        return Trained(version, run, None)


def promote(model: str, version: int, *, who: str, why: str) -> Step:
    """Put a version into production.

    Raises:
        UnknownModelError: there is no such version.
        PromotionError: it is in production already.
    """
    with Production(settings().database_url, Registry()) as production:
        return production.promote(model, version, who=who, why=why.strip() or NO_REASON)


def roll_back(model: str, *, who: str, why: str) -> Step:
    """Take the last promotion back.

    Raises:
        UnknownModelError: there is no model of that name, or the version to go back to was deleted.
        PromotionError: nothing is in production.
    """
    registry = Registry()
    with Production(settings().database_url, registry) as production:
        if not production.history(model):
            registry.versions(model)  # an unknown name is an error of its own
        return production.roll_back(model, who=who, why=why.strip() or NO_REASON)


def history(model: str, at: datetime | None = None) -> tuple[list[Step], Step | None]:
    """Return what was in production: all steps, oldest first, and the one that counts at a time, by default now.

    Raises:
        UnknownModelError: there is no model of that name, and never was one in production.
    """
    registry = Registry()
    with Production(settings().database_url, registry) as production:
        with suppress(RegistryError):  # without MLflow: as it was heard of last
            production.settle(model)
        steps, step = production.history(model), production.at(model, at)
    if not steps:
        registry.versions(model)  # an unknown name is an error, not a model without history
    return steps, step
