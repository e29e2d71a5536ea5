"""What the pages of sessions, data sets and models show, of what the API answers. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tarmac.base.browser import in_browser
from tarmac.base.units import format_seconds, format_size
from tarmac.registry import tags
from tarmac.registry.facts import score_text
from tarmac.web import answers
from tarmac.web.page.bars import sparkline
from tarmac.web.page.form import UNUSED
from tarmac.web.page.now import Badge

PRODUCTION = "production"
PAGE = 50
"""Sessions on a page."""


@dataclass(frozen=True)
class SessionLine:
    """A session in the list."""

    id: str
    title: str
    model: str
    owner: str
    badge: Badge
    started: datetime | None
    took: str
    says: str


@dataclass(frozen=True)
class FileLine:
    """A file of the store. `file`: its name in an address."""

    file: str
    names: str
    size: str
    stored: datetime | None


@dataclass(frozen=True)
class VersionLine:
    """A version of a model. `score`: with its name, "" where none is recorded."""

    version: int
    created: datetime
    score: str
    data: str
    in_production: bool
    aliases: list[str]
    same_as: str
    url: str


@dataclass(frozen=True)
class ModelCard:
    """A registered model, its versions newest first.

    `spark`: its scores over the versions, oldest first, of those alone that were scored on the lines of the newest one.
    `plot`: JSON for the script that draws curves, the scores over the versions, and of these each that was scored on
    other lines than the one before it; those of another score are left out. `apart`: whether there are such versions.
    """

    name: str
    kind: str
    production: int | None
    spark: str
    plot: str
    apart: bool
    versions: list[VersionLine]


def session_lines(rows: Iterable[answers.Row]) -> list[SessionLine]:
    """Return the sessions as a list shows them."""
    return [
        SessionLine(
            id=row.id,
            title=row.name or row.id,
            model=row.model or "",
            owner=row.owner or "",
            badge=_badge(row),
            started=row.started,
            took="" if row.seconds is None else format_seconds(row.seconds),
            says=in_browser(row.says),
        )
        for row in rows
    ]


def _badge(row: answers.Row) -> Badge:
    if row.was_cancelled:
        return Badge("quiet", "cancelled")
    return _BADGES.get(row.run_state, Badge("warning", row.run_state))


_BADGES = {
    "success": Badge("good", "ended well"),
    "failed": Badge("bad", "failed"),
    "running": Badge("warning", "under way"),
    "queued": Badge("quiet", "not begun"),
}


_WHAT = {"jsonl": "", "weights": "weights, ", "tar": "code, "}
"""What stands before a file that has no name; of others it is a script."""


def file_lines(stored: Iterable[answers.Listed]) -> list[FileLine]:
    """Return the files of the store as a list shows them."""
    return [
        FileLine(
            file=one.reference.rpartition("/")[2],
            names=", ".join(one.names) or f"{_WHAT.get(one.reference.rpartition('.')[2], 'script, ')}{UNUSED}",
            size=format_size(one.size),
            stored=one.stored,
        )
        for one in stored
    ]


def sample_lines(content: answers.Content) -> list[str]:
    """Return the first lines of a data set as JSON."""
    return [json.dumps(one, ensure_ascii=False) for one in content.sample]


def model_cards(versions: Sequence[answers.Version]) -> list[ModelCard]:
    """Return the registered models by name."""
    found: dict[str, list[answers.Version]] = {}
    for one in versions:
        found.setdefault(one.name, []).append(one)
    return [model_card(name, found[name]) for name in sorted(found)]


def model_card(name: str, versions: Sequence[answers.Version]) -> ModelCard:
    """Return one registered model."""
    newest = sorted(versions, key=lambda one: one.version, reverse=True)
    score_name = next((named for one in newest if (named := one.tags.get(tags.SCORE_NAME))), "")
    scores = {
        one.version: value
        for one in reversed(newest)
        if one.tags.get(tags.SCORE_NAME) == score_name and (value := _score(one)) is not None
    }
    lines = {one.version: one.tags.get(tags.EVALUATION_SET) for one in newest if one.version in scores}
    apart = [after for before, after in pairwise(scores) if lines[before] != lines[after]]
    latest = lines[max(scores)] if scores else None
    production = [one.version for one in newest if PRODUCTION in one.aliases]
    return ModelCard(
        name=name,
        kind=next((kind for one in newest if (kind := one.tags.get(tags.MODEL))), ""),
        production=production[0] if production else None,
        spark=sparkline([value for version, value in scores.items() if lines[version] == latest]),
        plot=json.dumps([[score_name, list(scores), list(scores.values()), apart]]),
        apart=bool(apart),
        versions=[_version(one) for one in newest],
    )


def _score(version: answers.Version) -> float | None:
    try:
        value = float(version.tags.get(tags.SCORE, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _version(one: answers.Version) -> VersionLine:
    return VersionLine(
        version=one.version,
        created=one.created,
        score=score_text(one.tags),
        data=one.tags.get(tags.DATA, ""),
        in_production=PRODUCTION in one.aliases,
        aliases=[alias for alias in one.aliases if alias != PRODUCTION],
        same_as=one.same_as or "",
        url=one.url,
    )


def to_choose(first: str, second: str, there: int) -> str:
    """Say what a person has to choose before two versions of a model can be compared; "": nothing.

    Args:
        first, second: what was chosen; "" where nothing was.
        there: how many versions the model has.
    """
    if there < 2:
        return "This model has one version only: there is nothing to compare it with yet."
    if first and first == second:
        return f"Version {first} is chosen as both: choose another version as the first or as the second."
    if not first and not second:
        return "Choose two versions to compare: one as the first, one as the second."
    if not first or not second:
        chosen, missing = ("first", "second") if first else ("second", "first")
        return f"Version {first or second} is the {chosen}: choose another version as the {missing}, too."
    return ""


PROMOTED, ROLLED_BACK = "promoted", "rolled-back"
"""Words in the address of a model's page, so that no address puts text of its own there."""


def told(done: str, production: int | None) -> str:
    """Say what a button did; "": no button was pressed, or what it did has been changed since.

    Args:
        done: the word of the button.
        production: the version that is in production now.
    """
    if done == ROLLED_BACK:
        now = "Nothing is in production now" if production is None else f"Version {production} is in production again"
        return f"The last promotion was taken back. {now}."
    return f"Version {production} is in production now." if done == PROMOTED and production is not None else ""


def compared(pair: Sequence[answers.Compared]) -> list[tuple[str, str, str, str, bool]]:
    """Return the rows of a comparison: section, name, both values, and whether they differ; what differs first."""
    rows = []
    for section in ("metric", "parameter", "data", "training", "origin"):
        left, right = (getattr(one, section) for one in pair)
        for name in {**left, **right}:
            a, b = left.get(name, "-"), right.get(name, "-")
            rows.append((section, name, a, b, a != b))
    return sorted(rows, key=lambda row: not row[4])
