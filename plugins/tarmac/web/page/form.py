"""The form of a new session: from its fields to a request and back, and where each problem belongs. Pure.

It has no rules of its own: what cannot be read as a number goes on as it is, and the API says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tarmac.base.browser import told
from tarmac.base.units import format_cores, format_seconds, format_size
from tarmac.request.catalogue import TRANSFORMER, from_weights, named_weights
from tarmac.request.schema import MOST_DATASETS
from tarmac.web import answers

FEWEST_ROWS, MOST_ROWS = 3, MOST_DATASETS
"""Data sets that a form has room for at first, and at most."""

ROWS = "rows"
"""The name of the field that says for how many data sets a form has room."""

_TOP = {"name": str, "base_model": str, "seed": int, "priority": int, "promote": str, "script": str}
_RESOURCES = {
    "gpu_memory": str,
    "gpus": int,
    "memory": str,
    "cpus": float,
    "policy": str,
    "host": str,
    "max_wait_seconds": int,
    "stall_seconds": int,
}
_SWITCHES = ("gpu", "no_cache")
NAMES = ["model", *_SWITCHES, *_TOP, *_RESOURCES]
"""The fields that the form has for every model, data sets aside."""

USES = (
    ("train", "to train on, in place of the first data set"),
    ("eval", "to score on, in place of what is chosen"),
    ("more", "to train on, as one more data set"),
)
"""What a file of one's own may be for, and in words."""

UNUSED = "no session used it lately"
"""What stands in the place of a file's names: the sessions that are looked through are the latest ones."""

PARAMETER = "parameter."
"""What the name of a parameter's field begins with."""

ARCHITECTURE = f"{PARAMETER}architecture"
"""The field that decides which parameters a form has; it is chosen with the model."""


@dataclass(frozen=True)
class Choice:
    """An entry of a list to choose from."""

    value: str
    text: str


@dataclass(frozen=True)
class Input:
    """The field of a parameter. `step`: as HTML has it; `choices`: it is a list to choose from; `word`: it is a text.

    `help`: what it does.
    """

    name: str
    label: str
    low: str
    high: str
    step: str
    default: str
    choices: list[Choice]
    word: bool
    help: str


def request_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the request that a form's fields say. What was left empty is left out."""
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    request: dict[str, Any] = {"model": given.get("model", ""), "datasets": _datasets(given)}
    request |= {name: True for name in _SWITCHES if name in given}
    request |= {name: _read(given[name], kind) for name, kind in _TOP.items() if name in given}
    resources = {name: _read(given[name], kind) for name, kind in _RESOURCES.items() if name in given}
    if resources:
        request["resources"] = resources
    named = {name.removeprefix(PARAMETER): value for name, value in given.items() if name.startswith(PARAMETER)}
    if named:
        request["parameters"] = {name: _read(value, float) for name, value in named.items()}
    return request


def _datasets(given: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for row in range(MOST_ROWS):
        train, scored = given.get(f"data.{row}.train"), given.get(f"data.{row}.eval")
        if train or scored:
            found[given.get(f"data.{row}.name", f"data-{row + 1}")] = {"train": train, "eval": scored}
    return found


def _read(text: str, kind: type) -> Any:
    if kind is not str and re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    if kind is float and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return float(text)
    return text


def fields_of(request: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that say a request, as far as the form has such: the inverse of `request_of`."""
    found = {name: "on" for name in _SWITCHES if request.get(name) is True}
    resources = _mapping(request.get("resources"))
    known = [(name, request.get(name)) for name in ("model", *_TOP)] + [
        (name, resources.get(name)) for name in _RESOURCES
    ]
    known += [(f"{PARAMETER}{name}", value) for name, value in _mapping(request.get("parameters")).items()]
    for row, (name, one) in enumerate(list(_mapping(request.get("datasets")).items())[:MOST_ROWS]):
        known += [(f"data.{row}.name", name)]
        known += [(f"data.{row}.{part}", _mapping(one).get(part)) for part in ("train", "eval")]
    return found | {name: str(value) for name, value in known if isinstance(value, str | int | float)}


def rows_of(given: Mapping[str, str]) -> int:
    """Return for how many data sets a form has room: for those that are given, and for as many as it had. Pure."""
    had = given.get(ROWS, "")
    asked = int(had) if re.fullmatch(r"\d{1,3}", had, re.ASCII) else 0
    used = [
        row for row in range(MOST_ROWS) if any(given.get(f"data.{row}.{part}") for part in ("name", "train", "eval"))
    ]
    return min(max(asked, FEWEST_ROWS, *(row + 1 for row in used)), MOST_ROWS)


def with_another_row(given: Mapping[str, str]) -> dict[str, str]:
    """Return a form's fields with room for one data set more. Pure."""
    return {**given, ROWS: str(min(rows_of(given) + 1, MOST_ROWS))}


def hints(request: Mapping[str, Any]) -> list[str]:
    """Return what a person should know of a request that is good, in a sentence each. Pure."""
    same = [
        name
        for name, one in _mapping(request.get("datasets")).items()
        if _mapping(one).get("train") and _mapping(one).get("train") == _mapping(one).get("eval")
    ]
    return [
        f"{name} is scored on the file that it trains on: the score will say how well the model repeats what it has "
        "seen, and nothing of other data. Choose another file, or a part that is held out."
        for name in same
    ]


def as_another(given: Mapping[str, str]) -> dict[str, str]:
    """Return a form's fields for the model and the network that were chosen above it. Pure.

    What both forms have is kept. Parameters stay too: those that the other form has no field for are not sent with it.
    """
    model, network = given.get("as_model", ""), given.get("as_architecture", "")
    kept = {name: value for name, value in given.items() if name not in ("do", "model", ARCHITECTURE)}
    if network != TRANSFORMER and from_weights(kept.get("base_model")):
        del kept["base_model"]
    if network:
        kept[ARCHITECTURE] = network
    return {**kept, "model": model}


def tunes(given: Mapping[str, str]) -> bool:
    """Tell whether a form is one for the fine-tuning of a transformer. Pure."""
    asked = given.get(ARCHITECTURE)
    return asked == TRANSFORMER or (not asked and from_weights(given.get("base_model")))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def field_of(problem: str, fields: Iterable[str], given: Mapping[str, str]) -> str | None:
    """Return the field that a problem is about; None: none of these.

    Args:
        problem: as the API says it: the path of a field, a colon, and what is wrong.
        fields: the names of the form's fields.
        given: what was sent.
    """
    path = problem.partition(": ")[0]
    for row in range(rows_of(given)):
        name = given.get(f"data.{row}.name", "").strip() or f"data-{row + 1}"
        if path == f"datasets.{name}" or path.startswith(f"datasets.{name}."):
            return f"data.{row}.{'eval' if path.endswith('.eval') else 'train'}"
    if path == "datasets":
        return "data.0.train"
    wanted = path.removeprefix("resources.").replace("parameters.", PARAMETER)
    return wanted if wanted in set(fields) else None


def errors(problems: Sequence[str], fields: Iterable[str], given: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what is wrong with each field, and under "" what belongs to none."""
    names = list(fields)
    found: dict[str, list[str]] = {}
    for problem in problems:
        found.setdefault(field_of(problem, names, given) or "", []).append(problem)
    return found


def in_words(problems: Sequence[str], request: Mapping[str, Any]) -> list[str]:
    """Return the problems of a form's request as a person reads them who has not seen JSON.

    Args:
        request: that the form says.
    """
    problems = [told(one) for one in problems]
    if request.get("datasets"):
        return problems
    rest = [one for one in problems if one.partition(":")[0] != "datasets"]
    return ["datasets: choose a file to train on, or upload one of your own.", *rest]


def inputs(kind: answers.Kind, *, tuned: bool = False) -> list[Input]:
    """Return the fields of a model's parameters.

    Args:
        tuned: of a transformer that is fine-tuned.
    """
    parameters = (kind.transformer or []) if tuned else kind.parameters
    return [
        Input(
            name=f"{PARAMETER}{one.name}",
            label=one.name.replace("_", " "),
            low="" if one.low is None else f"{one.low:.12g}",
            high="" if one.high is None else f"{one.high:.12g}",
            step="1" if one.type == "int" else "any",
            default=""
            if one.default is None
            else f"{one.default:.12g}"
            if isinstance(one.default, float)
            else one.default,
            choices=[Choice(choice, choice) for choice in one.choices],
            word=one.type == "word",
            help=one.help,
        )
        for one in parameters
        if f"{PARAMETER}{one.name}" != ARCHITECTURE
    ]


def files(stored: Iterable[answers.Listed], given: Mapping[str, str] | None = None) -> list[Choice]:
    """Return the data sets to choose from: what people call them, their size, and the beginning of their id.

    Args:
        given: the form's fields; a file that no session has used is called as there.
    """
    named = _named_in(given or {})
    return [
        Choice(one.reference, _called(one, named.get(one.reference, UNUSED)))
        for one in stored
        if one.reference.endswith(".jsonl")
    ]


def _named_in(given: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in range(rows_of(given)):
        name = given.get(f"data.{row}.name", "").strip()
        for part, more in (("train", ""), ("eval", ", to score on")):
            if name and (reference := given.get(f"data.{row}.{part}")):
                found.setdefault(reference, f"{name}{more}")
    return found


def weights(stored: Iterable[answers.Listed]) -> list[Choice]:
    """Return the stored weights to choose from, as a request names them."""
    return [
        Choice(named_weights(one.reference), _called(one, UNUSED))
        for one in stored
        if one.reference.endswith(".weights")
    ]


def _called(one: answers.Listed, otherwise: str) -> str:
    return f"{', '.join(one.names[:3]) or otherwise} · {format_size(one.size)} · {_day(one)}"


def _day(one: answers.Stored) -> str:
    stored = "" if one.stored is None else f"{one.stored:%Y-%m-%d} · "
    return f"{stored}{one.reference[:8]}"


def room(now: answers.Now) -> tuple[str, str]:
    """Return in words what there is to train on now: GPUs, and hosts for sessions on the CPU."""
    usable = [one for one in now.devices if not one.quarantine and not one.unusable]
    waiting = {of: sum(1 for one in now.queue if one.of == of) for of in ("gpu", "cpu")}
    if usable:
        best = max(usable, key=lambda one: one.free_bytes)
        free = format_size(best.free_bytes)
        gpus = f"{len(usable)} of {len(now.devices)} can be used; the most that is free on one is {free}"
    else:
        gpus = "none can be used now" if now.devices else f"none: {now.no_gpu}"
    hosts = "; ".join(
        f"{one.name} has {format_cores(one.free_millicpus)} and {format_size(one.free_bytes)} free" for one in now.hosts
    )
    on_gpu = {held.session for one in now.devices for held in one.sessions}
    left: dict[str, list[float]] = {"gpu": [], "cpu": []}
    for one in now.sessions:
        if one.seconds_left is not None:
            left["gpu" if one.id in on_gpu else "cpu"].append(one.seconds_left)
    return (
        f"{gpus}. {_queue(waiting['gpu'], left['gpu'])}" if usable or waiting["gpu"] else f"{gpus}.",
        f"{hosts or 'No host has been measured yet'}. {_queue(waiting['cpu'], left['cpu'])}",
    )


def _queue(waiting: int, left: Sequence[float]) -> str:
    """Say whether a new session waits, and for how long at least, of the seconds that trainings still take."""
    said = f"{waiting} {'session waits' if waiting == 1 else 'sessions wait'} already."
    if not waiting:
        said = "No session waits: what fits starts at once."
    return f"{said} The next training ends in {format_seconds(min(left), about=True)}." if left else said


_IN_BROWSER: tuple[tuple[str, str], ...] = (
    (r"say which with `tarmac data push FILE --text NAME`", 'write its name into "Column of the text" below'),
    (r"say which with `tarmac data push FILE --label NAME`", 'write its name into "Column of the label" below'),
    (
        r"say which with `tarmac data push FILE --labels-between .*` for one label",
        'say which in "Labels of a text" below',
    ),
    (
        r"give the order with `--classes ([^`]+)`",
        r'write \1 into "Classes in order" below, and press "Read the file again"',
    ),
    (r"say which: `tarmac data push FILE --encoding (\S+)`", r'write \1 into "Encoding" below'),
    (
        r"which (?:Python before 3.14 )?needs one more library(?: for)?: pip install '[^']*'",
        "which is not read here: the client stores it (docs/client.md)",
    ),
)


def in_browser(text: str) -> str:
    """Return what is said of a file in the words of the form, which has fields where the client has options."""
    for pattern, instead in _IN_BROWSER:
        text = re.sub(pattern, instead, text)
    text = told(text)
    if '"Encoding" below' in text:  # it need not be lines then
        text = re.sub(r" Expected is JSON Lines.*(?= Nothing was stored\.)", "", text)
    return text


def as_json(request: Mapping[str, Any]) -> str:
    """Return a request as a person reads it."""
    return json.dumps(request, indent=2, ensure_ascii=False)
