"""What `make models`, `make compare` and `make production` print. Pure: lines of text from what the registry holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tarmac.cli.values import one_line
from tarmac.containers.protocol import format_seconds
from tarmac.registry.client import Run, Version
from tarmac.registry.promotion import Step


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns as wide as their widest cell; the last column is as long as it is."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def age(seconds: float) -> str:
    """Seconds for people, by days from two days on."""
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else format_seconds(seconds)


def score(version: Version) -> str:
    """A version's metric, as its session measured it; "-" where that is not recorded as a number."""
    name, value = version.tags.get("tarmac.score_name"), version.tags.get("tarmac.score")
    try:
        return f"{name} {float(value):.4f}" if name and value else "-"
    except ValueError:
        return "-"


def version_rows(versions: Sequence[Version], *, now: float) -> list[list[str]]:
    """One row a version for `make models`.

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
            version.tags.get("tarmac.data") or "-",
            age(max(0.0, now - version.created)),
        ]
        for version in versions
    ]


def comparison(a: tuple[Version, Run], b: tuple[Version, Run]) -> list[str]:
    """Two versions side by side: metrics, parameters, data, device, duration. A star marks what differs."""
    facts = [_facts(*a), _facts(*b)]
    rows = []
    for section in facts[0]:
        names = sorted({name for each in facts for name in each[section]})
        for name in names:
            left, right = (each[section].get(name, "-") for each in facts)
            rows.append(["*" if left != right else "", section, name, left, right])
    titles = [f"{version.name}/{version.version}" for version, _ in (a, b)]
    return table(["", "", "", *titles], rows)


def _facts(version: Version, run: Run) -> dict[str, dict[str, str]]:
    params, tags, metrics = run.params, run.tags, run.metrics
    counted = {"train_lines", "eval_lines", "eval_lines_seen", "skipped_lines"}
    data = {name: value for name, value in params.items() if name.startswith("data.") or name in counted}
    about = {"model", "seed", "device"}
    asked = {name: value for name, value in params.items() if name not in data and name not in about}
    bookkeeping = {"seconds", "steps", "best_step", "best_score", "gpu_peak_bytes", "memory_peak_bytes"}
    origin = {
        "model": params.get("model", "-"),
        "seed": params.get("seed", "-"),
        "image": tags.get("tarmac.image", "-"),
        "version": tags.get("tarmac.version", "-"),
        "commit": tags.get("tarmac.commit", "-"),
        "run": tags.get("tarmac.run_id", "-"),
        "evaluation set": version.tags.get("tarmac.evaluation_set", "-"),
    }
    training = {"device": params.get("device", "-")}
    if "seconds" in metrics:
        training["duration"] = format_seconds(metrics["seconds"])
    for name in ("gpu_peak_bytes", "memory_peak_bytes"):
        if name in metrics:
            training[name.removesuffix("_bytes").replace("_", " ")] = f"{metrics[name] / 1024**2:,.0f} MiB"
    measured = {name: f"{value:.4f}" for name, value in metrics.items() if name not in bookkeeping}
    return {"metric": measured, "parameter": dict(asked), "data": data, "training": training, "origin": origin}


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
