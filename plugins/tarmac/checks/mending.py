"""Mends what can be mended without a question, and says of the rest why it is left: `make doctor FIX=1`.

What sessions that are over left is the reaper's to judge: its own rounds are run. Which logs and runs are old is
retention's. So nothing of a session that goes on is touched; data, models, settings and other machines neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from tarmac.base.errors import TarmacError
from tarmac.base.settings import settings
from tarmac.base.texts import counted
from tarmac.checks import doctor
from tarmac.checks.finding import Finding, State
from tarmac.containers import engine
from tarmac.ledger.ledger import Ledger
from tarmac.reaper import reaper, retention
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.reaper.log_files import LogFiles
from tarmac.reaper.orphans import Orphans
from tarmac.registry import artifacts
from tarmac.registry.client import Registry

WHY_LEFT = {
    "images": "another stack on this machine, or a way back to an older version, may need them",
    "gpu": "a person has to see to a device",
    "clocks": "the clock belongs to the machine's administrator",
    "migrations": "a migration cannot be taken back",
    "pipeline": "a person has paused it",
    "code": "only a restart makes services read it, and you choose when",
    "disk": "what else takes space is data, models, images or logs that are kept: you choose",
    "ports": "which port is free and who may reach it is yours to say, in env/stack.env",
    "logs": "they are not older than TARMAC_KEEP_DAYS says",
    "machines": "what costs money, and how much of it, is yours to say in env/hosts.toml",
    "notifications": "the addresses are yours, in env/notify.toml",
    "broker": "`make up` starts it with what it lacks",
    "workers": "`make up` starts those that are missing",
    "leftovers": "the reaper's rule is not met, they belong to another machine, or something still uses them",
    "reservations": "the session may go on: an expired lease alone proves nothing",
}
_LOOKS, _LOOK_SECONDS = 30, 2.0
_OTHERWISE = "nothing is known that mends it and is safe"


def removed_lines(removed: Orphans, after: Orphans) -> list[str]:
    """Say what was removed, with the reason: what is no longer there. Pure.

    Args:
        removed: what the reaper's round was to remove.
        after: what is orphaned since.
    """

    def gone[T](before: Mapping[T, str], now: Collection[T], name: Callable[[T], str], what: str) -> list[str]:
        left = {name(one) for one in now}
        return [f"{what} {name(one)}: {why}" for one, why in before.items() if name(one) not in left]

    return [
        *gone(removed.containers, after.containers, lambda one: one.name, "removed container"),
        *gone(removed.reserved, after.reserved, lambda key: key.run_id, "released the reservation of"),
        *gone(removed.waiting, after.waiting, lambda key: key.run_id, "took out of the queue"),
        *gone(removed.volumes, after.volumes, lambda one: one.name, "removed volume"),
    ]


def left_of(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings that are not well, each with `why` it was left. Pure."""
    return [{**one, "why": WHY_LEFT.get(one["part"], _OTHERWISE)} for one in findings if one["state"] != "ok"]


def reap(rounds: reaper.Reaper, pause: Callable[[], None]) -> list[str]:
    """Let the reaper find orphans twice, and remove those that it found both times. Returns what was removed.

    Args:
        rounds: one of its own, which has seen nothing before.
        pause: called between its rounds.

    Raises:
        TarmacError, OSError: something does not answer.
    """
    rounds.round()
    pause()
    removed = rounds.round()
    return removed_lines(removed, rounds.look()) if removed else []


def settle(look: Callable[[], Sequence[Finding]], pause: Callable[[], None]) -> None:
    """Wait until Airflow has heard of all its parts: of one that was started just now it hears within half a minute.

    Args:
        look: says how the parts are.
        pause: called between two looks.

    Raises:
        OSError: Airflow does not answer.
    """
    for _ in range(_LOOKS):
        if all(one.state is State.OK for one in look()):
            return
        pause()


def mend() -> dict[str, Any]:
    """Mend what is safe to mend.

    Returns:
        `mended` and `failed`, since something does not answer, each with `part` and `says`; `left`, the findings that
        remain, each with `why`; `findings`, all that were made afterwards.
    """
    mended: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for part, attempt in (("leftovers", _reap), ("logs", _old), ("artifacts", _unneeded)):
        try:
            mended += [{"part": part, "says": line} for line in attempt()]
        except (TarmacError, OSError) as error:  # requests' and docker's are OSErrors
            failed.append({"part": part, "says": f"could not be mended: {error}"})
    with suppress(OSError):  # which the examination tells of
        settle(doctor.airflow_health, lambda: time.sleep(_LOOK_SECONDS))
    findings = doctor.examine()
    return {"mended": mended, "failed": failed, "left": left_of(findings), "findings": findings}


def _reap() -> list[str]:
    stack = settings()
    with Ledger(stack.database_url) as ledger, closing(AirflowState(database_url())) as airflow:
        found = reaper.Reaper(engine.client(), ledger, airflow, stack.stack)
        return reap(found, lambda: time.sleep(reaper.ROUND_SECONDS))


def _old() -> list[str]:
    days = settings().kept.days
    if days is None:
        return []
    with closing(AirflowState(database_url())) as airflow:
        found = retention.remove(airflow, LogFiles(), days, lambda: False)
    return [f"removed what is over for more than {counted(days, 'day')}: {found.sentence}"] if found.sentence else []


def _unneeded() -> list[str]:
    days = settings().kept.artifact_days
    if days is None:
        return []
    with closing(AirflowState(database_url())) as airflow:
        found = artifacts.remove(Registry(), lambda: retention.bases_under_way(airflow), days, lambda: False)
    says = f"removed what no version has needed for more than {counted(days, 'day')}: {found.sentence}"
    return [says] if found.sentence else []
