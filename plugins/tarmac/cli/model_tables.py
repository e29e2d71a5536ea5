"""What `make models`, `make compare` and `make production` print. Pure: rows and lines from what the registry holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tarmac.base.texts import one_line
from tarmac.base.units import format_seconds, format_size
from tarmac.registry import tags as tag
from tarmac.registry.client import Run, Version
from tarmac.registry.promotion import Step


def age(seconds: float) -> str:
    """Seconds for people, by days from two days on."""
    return format_seconds(seconds, about=seconds >= 2 * 86400)


def score(version: Version) -> str:
    """A version's metric, as its session measured it; "-" where that is not recorded as a number."""
    name, value = version.tags.get(tag.SCORE_NAME), version.tags.get(tag.SCORE)
    try:
        return f"{name} {float(value):.4f}" if name and value else "-"
    except ValueError:
        return "-"


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


@dataclass(frozen=True)
class Trained:
    """A version with what its session recorded: its MLflow run and its request, None where that was deleted."""

    version: Version
    run: Run | None
    request: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        """Its name and number."""
        return f"{self.version.name}/{self.version.version}"


def comparison(a: Trained, b: Trained) -> list[list[str]]:
    """Rows of two versions side by side: metrics, parameters, data, training. A star marks what differs."""
    both = [facts(a), facts(b)]
    rows = []
    for section in both[0]:
        for name in sorted({name for each in both for name in each[section]}):
            left, right = (each[section].get(name, "-") for each in both)
            rows.append(["*" if left != right else "", section, name, left, right])
    return rows


_COUNTED = {"train_lines", "eval_lines", "eval_lines_seen", "skipped_lines"}
_ABOUT = {"model", "seed", "device", "script", "base_model"}
_BOOKKEEPING = {"seconds", "steps", "best_step", "best_score", "gpu_peak_bytes", "memory_peak_bytes"}


def facts(trained: Trained) -> dict[str, dict[str, str]]:
    """What was really run, and what came out, by section and name.

    A script knows no defaults of a model: of the parameters only those that the request gave are its own.
    """
    version, run, request = trained.version, trained.run, trained.request or {}
    params, metrics = (run.params, run.metrics) if run else ({}, {})
    tags = {**version.tags, **(run.tags if run else {})}
    data = {name: value for name, value in params.items() if name.startswith("data.") or name in _COUNTED}
    script = params.get("script") or tags.get(tag.SCRIPT) or request.get("script")
    given = request.get("parameters") if script else None
    asked = {
        name: value
        for name, value in params.items()
        if name not in data and name not in _ABOUT and (given is None or name in given)
    }
    training = {
        "code": f"script {script}" if script else "the trainer's own",
        "base model": tags.get(tag.BASE_MODEL) or request.get("base_model") or "-",
        "device": params.get("device", "-"),
    }
    if taken := tags.get(tag.CACHED_FROM):
        training["taken from"] = taken
    if same := version.tags.get(tag.SAME_AS):
        training["same model as"] = same
    if "seconds" in metrics:
        training["duration"] = format_seconds(metrics["seconds"])
    for name in ("gpu_peak_bytes", "memory_peak_bytes"):
        if name in metrics:
            training[name.removesuffix("_bytes").replace("_", " ")] = format_size(int(metrics[name]))
    measured = {name: f"{value:.4f}" for name, value in metrics.items() if name not in _BOOKKEEPING}
    if run is None and (ranked := version.tags.get(tag.SCORE_NAME)):
        measured = {ranked: score(version).removeprefix(f"{ranked} ")}
    origin = {
        "model": params.get("model") or version.tags.get(tag.MODEL) or "-",
        "seed": params.get("seed", "-"),
        "image": tags.get(tag.IMAGE, "-"),
        "version": tags.get(tag.TRAINER_VERSION, "-"),
        "commit": tags.get(tag.COMMIT, "-"),
        "run": tags.get(tag.RUN_ID, "-"),
        "evaluation set": version.tags.get(tag.EVALUATION_SET, "-"),
    }
    return {"metric": measured, "parameter": asked, "data": data, "training": training, "origin": origin}


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


def step_facts(step: Step) -> dict[str, Any]:
    """What `make production JSON=1` says of a step."""
    return asdict(step)


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
