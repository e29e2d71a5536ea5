"""env/notify.toml: who is told what, and where. Pure, but for `configured`."""

from __future__ import annotations

import enum
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tarmac.base.errors import NotifyError

VARIABLE = "TARMAC_NOTIFY"
"""The environment variable that holds the file's text: env/host/stack.sh sets it, for the scheduler and airflow-cli."""


class Kind(enum.StrEnum):
    """What people can be told of."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting"
    QUARANTINE = "quarantine"
    HOST = "host"
    PROMOTED = "promoted"


USUAL = frozenset(Kind) - {Kind.CANCELLED}
"""What a target is told that does not say. Who cancels a session knows."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TOP = ("waits_longer_than", "at_once", "at_once_within", "page", "teams", "target")
_OF_TARGET = ("name", "url", "events", "owners", "teams")


@dataclass(frozen=True)
class Target:
    """One place that messages go to.

    Attributes:
        name: of the entry, and in the ledger.
        url: for Apprise; a secret.
        kinds: what it is told.
        owners: whose sessions and models; None: everyone's, and those of devices and hosts.
    """

    name: str
    url: str = field(repr=False)
    kinds: frozenset[Kind] = USUAL
    owners: frozenset[str] | None = None

    def wants(self, kind: Kind, owner: str) -> bool:
        """Tell whether a message of this kind, about what belongs to a person ("": to none), goes here. Pure."""
        return kind in self.kinds and (self.owners is None or owner in self.owners)


@dataclass(frozen=True)
class Config:
    """What env/notify.toml says.

    Attributes:
        wait_seconds: a session that has waited longer is told.
        at_once, window_seconds: so many messages go to a target one by one within the window; more become one.
        page: where the links lead; "": TARMAC_PUBLIC_URL.
    """

    targets: tuple[Target, ...] = ()
    wait_seconds: float = 3600
    at_once: int = 5
    window_seconds: float = 600
    page: str = ""


def read(text: str) -> Config:
    """Read the file's text.

    Raises:
        NotifyError: with a sentence for each entry that is wrong; none of them shows a target's address.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotifyError([f"is not TOML: {error}"]) from error
    problems = [f"{key}: is not known; known are {', '.join(_TOP)}." for key in found if key not in _TOP]
    config = Config(
        wait_seconds=_duration(found, "waits_longer_than", Config.wait_seconds, problems),
        at_once=_count(found, problems),
        window_seconds=_duration(found, "at_once_within", Config.window_seconds, problems),
        page=_page(found, problems),
        targets=_targets(found, _teams(found, problems), problems),
    )
    if problems:
        raise NotifyError(problems)
    return config


def configured(environment: Mapping[str, str] = os.environ) -> Config:
    """Return what this process was given of env/notify.toml; without targets where there is none.

    Raises:
        NotifyError: as of `read`.
    """
    return read(environment.get(VARIABLE, ""))


def _duration(found: Mapping[str, Any], key: str, default: float, problems: list[str]) -> float:
    value = found.get(key)
    if value is None:
        return default
    if isinstance(value, str) and (match := re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", value)):
        return float(int(match[1]) * _UNITS[match[2]])
    problems.append(f'{key}: {value!r} is not a length of time: write for example "90s", "30m", "2h" or "1d".')
    return default


def _count(found: Mapping[str, Any], problems: list[str]) -> int:
    value = found.get("at_once", Config.at_once)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
        return value
    problems.append(f"at_once: {value!r} is not a whole number from 1 to 1000.")
    return Config.at_once


def _page(found: Mapping[str, Any], problems: list[str]) -> str:
    value = found.get("page", "")
    if isinstance(value, str) and (not value or (value.startswith(("http://", "https://")) and urlsplit(value).netloc)):
        return value.rstrip("/")
    problems.append(f'page: {value!r} is not an address: write for example "https://tarmac.example.org".')
    return ""


def _teams(found: Mapping[str, Any], problems: list[str]) -> dict[str, frozenset[str]]:
    teams = found.get("teams", {})
    if not isinstance(teams, Mapping):
        problems.append('teams: must be a table: [teams], then a line like nlp = ["anna", "ben"] for each.')
        return {}
    known = {}
    for name, members in teams.items():
        if _words(members):
            known[name] = frozenset(members)
        else:
            problems.append(f'teams.{name}: {members!r} is not a list of accounts: write for example ["anna", "ben"].')
            known[name] = frozenset()
    return known


def _words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


def _targets(found: Mapping[str, Any], teams: Mapping[str, frozenset[str]], problems: list[str]) -> tuple[Target, ...]:
    entries = found.get("target", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        problems.append("target: must be written [[target]], with two brackets, once for each.")
        return ()
    targets: list[Target] = []
    for number, entry in enumerate(entries, 1):
        target = _target(number, entry, teams, problems)
        if target.name in {one.name for one in targets}:
            problems.append(f"target {target.name!r}: is there twice; give each target a name of its own.")
        targets.append(target)
    return tuple(targets)


def _target(number: int, entry: Mapping[str, Any], teams: Mapping[str, frozenset[str]], problems: list[str]) -> Target:
    name = entry.get("name")
    where = f"target {name!r}" if isinstance(name, str) and name else f"target number {number}"

    def wrong(text: str) -> None:
        problems.append(f"{where}: {text}")

    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable():
        wrong('name: must be a text of 1 to 100 characters, such as "anna\'s phone".')
    for key in entry:
        if key not in _OF_TARGET:
            wrong(f"{key}: is not known; known are {', '.join(_OF_TARGET)}.")
    url = entry.get("url")
    if not isinstance(url, str) or "://" not in url:
        wrong('url: must be an address for Apprise, such as "ntfy://ntfy.example.org/topic".')
    kinds: Sequence[Any] = entry.get("events", sorted(USUAL))
    if not _words(kinds) or not set(kinds) <= set(Kind):
        wrong(f"events: {kinds!r} must be a list of some of: {', '.join(Kind)}.")
        kinds = ()
    return Target(str(name), str(url), frozenset(map(Kind, kinds)), _owners(entry, teams, wrong))


def _owners(entry: Mapping[str, Any], teams: Mapping[str, frozenset[str]], wrong: Any) -> frozenset[str] | None:
    owners: set[str] = set()
    for key in ("owners", "teams"):
        value = entry.get(key)
        if value is None:
            continue
        if not _words(value):
            wrong(f'{key}: {value!r} must be a list of names, such as ["anna"].')
        elif key == "owners":
            owners |= set(value)
        elif unknown := sorted(set(value) - set(teams)):
            wrong(f"teams: there is no team {unknown[0]!r} under [teams]; there are: {', '.join(teams) or 'none'}.")
        else:
            owners |= frozenset().union(*(teams[team] for team in value))
    return frozenset(owners) if "owners" in entry or "teams" in entry else None
