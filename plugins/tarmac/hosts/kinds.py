"""env/hosts.toml: which kinds of machines may be started, and for how much money. Pure, but for `declared`."""

from __future__ import annotations

import enum
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from tarmac.base.errors import HostsFileError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.units import gpu_bytes, host_bytes, millicpus
from tarmac.hosts import clouds
from tarmac.hosts.clouds import Cloud

VARIABLE = "TARMAC_HOST_KINDS"
"""The environment variable that holds the file's text: env/host/stack.sh sets it, for the scheduler alone."""

DAY = 86400.0


class Provider(enum.StrEnum):
    """How the machines of a kind are made."""

    SCRIPT = "script"
    LIBCLOUD = "libcloud"


@dataclass(frozen=True, slots=True)
class Size:
    """What a machine of a kind has: `gpu_bytes` on each of `gpus` GPUs, memory in bytes, cores in thousandths."""

    gpus: int
    gpu_bytes: int
    memory_bytes: int
    millicpus: int


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of machine that is started when a session needs it.

    Attributes:
        name: of the kind; its machines are called name-1, name-2 and so on.
        provider: how they are made.
        scripts: the folder of the commands, below env/providers; of the provider script.
        gpu: the GPU's name, for people and for the provider; "": it has none.
        size: what such a machine has.
        most: how many at once, at most. 0: none is started, and those that are there end.
        idle_seconds: a machine on which no session holds anything for so long is ended.
        life_seconds: a machine is ended so long after it was started, at the latest.
        start_seconds: a machine that is no host after this time is given up.
        after_seconds: a session that fits a host which is there, and has waited so long for it, has a machine started;
            None: it never has.
        price: of an hour.
        cloud: what its machines are made of; of the provider libcloud.
    """

    name: str
    provider: Provider
    scripts: str
    gpu: str
    size: Size
    most: int
    idle_seconds: float
    life_seconds: float
    start_seconds: float
    after_seconds: float | None
    price: float
    cloud: Cloud | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A machine as its provider lists it. `host_key`: the fingerprint of its SSH host key, or ""."""

    id: str
    name: str
    url: str = ""
    host_key: str = ""


@dataclass(frozen=True)
class Kinds:
    """What env/hosts.toml says.

    Attributes:
        label: what each machine carries, to be found by.
        money_per_day: the most that all machines together may cost in a day of UTC.
        currency: a word behind amounts, for people.
    """

    label: str = ""
    money_per_day: float = 0.0
    currency: str = ""
    kinds: tuple[Kind, ...] = ()


_TOP = ("label", "money_per_day", "currency", "kind")
_OF_KIND = (
    "name", "provider", "scripts", "libcloud", "gpu", "gpus", "gpu_memory", "cores", "memory", "most", "idle_minutes",
    "most_hours", "start_minutes", "after_minutes", "price_per_hour",
)  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
_LABEL = re.compile(r"[a-z][a-z0-9-]{2,39}")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

type _Wrong = Callable[[str], None]


def read(text: str) -> Kinds:
    """Read the file's text.

    Raises:
        HostsFileError: with a sentence for each entry that is wrong.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HostsFileError([f"is not TOML: {error}"]) from error
    problems = [f"{key}: is not known; known are {', '.join(_TOP)}." for key in found if key not in _TOP]
    entries = found.get("kind", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        problems.append("kind: must be written [[kind]], with two brackets, once for each.")
        entries = []
    kinds: list[Kind] = []
    for number, entry in enumerate(entries, 1):
        kind = _kind(number, entry, problems)
        if kind.name in {one.name for one in kinds}:
            problems.append(f"kind {kind.name!r}: is there twice; give each kind a name of its own.")
        kinds.append(kind)
    limit = _money(found, kinds, problems) if kinds else 0.0
    label, currency = found.get("label"), found.get("currency", "")
    if kinds and (not isinstance(label, str) or not _LABEL.fullmatch(label) or label == "change-me"):
        problems.append(
            f"label: {label!r} must be 3 to 40 of a-z, 0-9 and -, such as 'tarmac-nlp-team', that no other stack uses "
            "with the same account of the provider: machines with it which this stack does not know are terminated."
        )
    if not isinstance(currency, str) or len(currency) > 10 or not currency.isprintable():
        problems.append(f"currency: {currency!r} must be a short word, such as 'EUR'.")
    if problems:
        raise HostsFileError(problems)
    return Kinds(str(label or ""), limit, currency, tuple(kinds))


def declared(environment: Mapping[str, str] = os.environ) -> Kinds:
    """Return what this process was given of env/hosts.toml; without kinds where there is none.

    Raises:
        HostsFileError: as of `read`.
    """
    return read(environment.get(VARIABLE, ""))


def kind_of(machine: str, kinds: Iterable[Kind]) -> Kind | None:
    """Return the kind whose machines are called like this one: by its name and a number. Pure."""
    return next((kind for kind in kinds if re.fullmatch(rf"{re.escape(kind.name)}-\d+", machine)), None)


def lacking(kinds: Iterable[Kind], given: Mapping[str, str]) -> list[str]:
    """Say which credentials the kinds need and env/providers.env lacks. Pure."""
    found = []
    for kind in kinds:
        if kind.cloud is not None and (names := clouds.missing(kind.cloud, given)):
            found.append(
                f"kind {kind.name!r}: env/providers.env lacks {' and '.join(names)}, which the driver "
                f"{kind.cloud.driver} needs."
            )
    return found


def _money(found: Mapping[str, Any], kinds: list[Kind], problems: list[str]) -> float:
    value = found.get("money_per_day")
    if not _is_number(value) or not 0 <= value <= 1e6:
        problems.append(
            f"money_per_day: {value!r} must be a number from 0 to 1000000: what all machines may cost a day."
        )
        return 0.0
    for kind in kinds:
        needs = kind.price * kind.life_seconds / 3600
        if kind.most and needs > value:
            problems.append(
                f"kind {kind.name!r}: most_hours: a machine that lives {kind.life_seconds / 3600:g} hours costs "
                f"{needs:g}, and money_per_day is {value:g}, so none would ever be started: lower most_hours or raise "
                "money_per_day."
            )
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(number: int, entry: Mapping[str, Any], problems: list[str]) -> Kind:
    name = entry.get("name")
    where = f"kind {name!r}" if isinstance(name, str) and name else f"kind number {number}"

    def wrong(text: str) -> None:
        problems.append(f"{where}: {text}")

    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == LOCAL_HOST:
        wrong("name: must be 1 to 20 of a-z, 0-9 and -, a letter first, such as 'gpu-cloud'.")
    for key in entry:
        if key not in _OF_KIND:
            wrong(f"{key}: is not known; known are {', '.join(_OF_KIND)}.")
    provider = entry.get("provider")
    if provider not in set(Provider):
        wrong(f"provider: {provider!r} must be one of: {', '.join(Provider)}.")
        provider = Provider.SCRIPT
    scripts = entry.get("scripts", name)
    if not isinstance(scripts, str) or not _FOLDER.fullmatch(scripts):
        wrong(f"scripts: {scripts!r} must be the name of a folder in env/providers.")
    if provider == Provider.LIBCLOUD and "scripts" in entry:
        wrong("scripts: is for the provider script; leave it out.")
    if provider == Provider.SCRIPT and "libcloud" in entry:
        wrong("libcloud: is for provider = 'libcloud'; leave it out.")
    gpu = entry.get("gpu", "")
    if not isinstance(gpu, str) or len(gpu) > 100 or not gpu.isprintable():
        wrong(f"gpu: {gpu!r} must be a GPU's name, such as 'NVIDIA H100 80GB HBM3'.")
    after = _between(entry, "after_minutes", wrong, 1, 10080, None)
    return Kind(
        name=str(name),
        provider=Provider(provider),
        scripts=str(scripts),
        gpu=str(gpu),
        size=_size(entry, wrong),
        most=int(_between(entry, "most", wrong, 0, 100, whole=True) or 0),
        idle_seconds=60 * (_between(entry, "idle_minutes", wrong, 1, 1440) or 0),
        life_seconds=3600 * (_between(entry, "most_hours", wrong, 0.1, 24, 12) or 0),
        start_seconds=60 * (_between(entry, "start_minutes", wrong, 1, 120, 15) or 0),
        after_seconds=None if after is None else 60 * after,
        price=_between(entry, "price_per_hour", wrong, 0, 10000) or 0,
        cloud=clouds.read(entry.get("libcloud"), wrong) if provider == Provider.LIBCLOUD else None,
    )


_MISSING = object()


def _between(
    entry: Mapping[str, Any],
    key: str,
    wrong: _Wrong,
    low: float,
    high: float,
    default: Any = _MISSING,
    *,
    whole: bool = False,
) -> float | None:
    value = entry.get(key, default)
    if key not in entry and default is not _MISSING:
        return None if default is None else float(default)
    if not _is_number(value) or (whole and not isinstance(value, int)) or not low <= value <= high:
        shown = "is missing; it" if value is _MISSING else f"{value!r}"
        wrong(f"{key}: {shown} must be a {'whole ' if whole else ''}number from {low:g} to {high:g}.")
        return float(low)
    return float(value)


def _size(entry: Mapping[str, Any], wrong: _Wrong) -> Size:
    asked = "gpu_memory" in entry or "gpus" in entry or entry.get("gpu")
    count = int(_between(entry, "gpus", wrong, 1, 64, 1, whole=True) or 1) if asked else 0
    each = _sized(entry, "gpu_memory", gpu_bytes, wrong, "a size of GPU memory such as '80GiB'") if count else 0
    cores = _sized(entry, "cores", millicpus, wrong, "a number of cores from 0.1 to 1024")
    return Size(count, each, _sized(entry, "memory", host_bytes, wrong, "a size of memory such as '128GiB'"), cores)


def _sized(entry: Mapping[str, Any], key: str, parse: Callable[[object], int], wrong: _Wrong, what: str) -> int:
    try:
        return parse(entry.get(key))
    except ValueError:
        wrong(f"{key}: {entry.get(key)!r} must be {what}.")
        return 0


def money(amount: float, currency: str = "") -> str:
    """Return an amount as a person reads it: `0.35`, `12.00 EUR`. Pure."""
    return f"{amount:.2f} {currency}".rstrip()
