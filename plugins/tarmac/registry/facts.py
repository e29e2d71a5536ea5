"""A registered version, what its session recorded, and a step of what is in production, as JSON has them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tarmac.base import texts
from tarmac.base.units import format_seconds, format_size
from tarmac.registry import tags as tag
from tarmac.registry.client import Run, Version
from tarmac.registry.promotion import Step, counted, doubt


def version_facts(version: Version) -> dict[str, Any]:
    """Return what `make models JSON=1` and the API say of a version."""
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created": datetime.fromtimestamp(version.created, UTC),
        "same_as": version.tags.get(tag.SAME_AS),
        "mlflow_run": version.run_id,
        "source": version.source,
        "url": version.url,
        "tags": dict(version.tags),
    }


def score(version: Version) -> str:
    """A version's metric, as its session measured it; "-" where that is not recorded as a number."""
    return score_text(version.tags) or "-"


def score_text(tags: Mapping[str, str]) -> str:
    """Write a version's metric of its tags, and how many lines it is from where they are few; "": there is none."""
    name, value, lines = (tags.get(key, "") for key in (tag.SCORE_NAME, tag.SCORE, tag.EVAL_LINES))
    try:
        text = f"{name} {float(value):.4f}" if name and value and math.isfinite(float(value)) else ""
    except ValueError:  # a person may write anything into a tag
        return ""
    few = text and lines.isdecimal() and doubt(int(lines))
    return f"{text} on {counted(int(lines))} only" if few else text


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


_COUNTED = {"train_lines", "eval_lines", "eval_lines_seen", "skipped_lines"}
_ABOUT = {"model", "seed", "device", "script", "base_model"}
_BOOKKEEPING = {"seconds", "steps", "best_step", "best_score", "gpu_peak_bytes", "memory_peak_bytes"}


def training_facts(trained: Trained) -> dict[str, dict[str, str]]:
    """What was really run, and what came out, by section and name.

    A script knows no defaults of a model: of the parameters only those that the request gave are its own.
    """
    version, run, request = trained.version, trained.run, trained.request or {}
    # MLflow keeps texts: a parameter that was left to the model is the word None there.
    params = {name: value for name, value in run.params.items() if value != "None"} if run else {}
    metrics = run.metrics if run else {}
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
    measured = {
        name: _metric(value)
        for name, value in metrics.items()
        # What the training used of its machine differs from run to run, and says nothing of the model.
        if name not in _BOOKKEEPING and not name.startswith(tag.SYSTEM_METRICS)
    }
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
    return {"metric": measured, "parameter": asked, "data": by_content(data), "training": training, "origin": origin}


_DATA = re.compile(r"data\.(?P<name>.+)\.(?P<split>train|eval)\.(?P<what>id|bytes|lines)")


def by_content(data: Mapping[str, str]) -> dict[str, str]:
    """What a session's record says of its data sets, with what is in them apart from what they were called. Pure.

    Returns:
        For `train` and `eval` the ids with their lines, and the names; all else as it is.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    told = {}
    for key, value in data.items():
        if match := _DATA.fullmatch(key):
            found.setdefault((match["split"], match["name"]), {})[match["what"]] = value
        else:
            told[key] = value
    for split in ("train", "eval"):
        sets = sorted((one.get("id", "-"), name, one.get("lines")) for (of, name), one in found.items() if of == split)
        if sets:
            told[split] = ", ".join(one + _lines(lines) for one, _, lines in sets)
            told[f"{split} is called"] = ", ".join(name for _, name, _ in sets)
    return told


def _lines(count: str | None) -> str:
    return f" ({texts.counted(int(count), 'line')})" if count and count.isdecimal() else ""


def _metric(value: float) -> str:
    # A script may send any number; 1e308 has 309 digits.
    return f"{value:.4f}" if abs(value) < 1e9 else f"{value:.4e}"


def compared_facts(a: Trained, b: Trained) -> list[dict[str, Any]]:
    """Return what `make compare JSON=1` and the API say of two versions."""
    caution = scored_apart(a.version.tags, b.version.tags)
    return [{**version_facts(one.version), **training_facts(one), "caution": caution} for one in (a, b)]


def scored_apart(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    """Say of two versions' tags why their scores cannot be compared; "": they can, or one has none."""
    if not (a.get(tag.SCORE) and b.get(tag.SCORE)):
        return ""
    if a.get(tag.MODEL) != b.get(tag.MODEL):
        return "The two versions are of different kinds of model, so their scores cannot be compared."
    sets = [one.get(tag.EVALUATION_SET) for one in (a, b)]
    if None in sets:
        return "It is not recorded whether both scores are from the same evaluation lines: do not compare them."
    return "" if sets[0] == sets[1] else "The scores are from different evaluation lines, so they cannot be compared."


def step_facts(step: Step) -> dict[str, Any]:
    """Return what `make production JSON=1` and the API say of a step."""
    return asdict(step)
