"""What `make models`, `make compare` and `make production` print. Pure: rows and lines from what the registry holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tarmac.base.texts import one_line
from tarmac.base.units import format_seconds
from tarmac.registry import tags as tag
from tarmac.registry.client import Version
from tarmac.registry.facts import Trained, score, training_facts
from tarmac.registry.promotion import Step


def age(seconds: float) -> str:
    """Seconds for people, by days from two days on."""
    return format_seconds(seconds, about=seconds >= 2 * 86400)


def version_rows(versions: Sequence[Version], *, now: float) -> list[list[str]]:
    """One row a version for `make models`; the last column is empty for most.

    Args:
        versions: as the registry gives them.
        now: seconds since 1970.
    """
    return [
        [
            version.name,
            str(version.version),
            ", ".join(version.aliases) or "-",
            score(version),
            version.tags.get(tag.DATA) or "-",
            age(max(0.0, now - version.created)),
            f"same model as {same}" if (same := version.tags.get(tag.SAME_AS)) else "",
        ]
        for version in versions
    ]


def comparison(a: Trained, b: Trained) -> list[list[str]]:
    """Rows of two versions side by side: metrics, parameters, data, training. A star marks what differs."""
    both = [training_facts(a), training_facts(b)]
    rows = []
    for section in both[0]:
        for name in sorted({name for each in both for name in each[section]}):
            left, right = (each[section].get(name, "-") for each in both)
            rows.append(["*" if left != right else "", section, name, left, right])
    return rows


_KINDS = {
    "rule": "the rule",
    "person": "a person",
    "rollback": "a step back",
    "mlflow": "its alias was set there",
    "version_deleted": "the version was deleted there",
    "model_deleted": "the model was deleted there",
}


def step_lines(step: Step) -> list[str]:
    """Say what one step of the history did."""
    before, after = (
        "nothing" if version is None else f"version {version}" for version in (step.from_version, step.to_version)
    )
    return [
        f"{step.model}: {after} is in production, {before} was before",
        f"  since  {instant(step.at)}",
        f"  by     {one_line(step.who)} ({_KINDS[step.kind]})",
        f"  why    {one_line(step.why)}",
    ]


def history_rows(steps: Sequence[Step]) -> list[list[str]]:
    """One row a step for `make production`, newest first."""
    return [
        [
            *(instant(step.at), _number(step.from_version), _number(step.to_version), step.kind),
            *(one_line(step.who), one_line(step.why)),
        ]
        for step in reversed(steps)
    ]


def _number(version: int | None) -> str:
    return "-" if version is None else str(version)


def instant(when: datetime) -> str:
    """A time, UTC, as `AT=` takes it again."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
