"""A training as it goes: events, signs of life, the curve, the best candidate."""

import math
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.device import Device
from tarmac_trainer.runtime.health import Heartbeat

Line = TypeVar("Line")

CURVE_POINTS = 500
"""Points of a curve that are kept for the record; each is a line of the log as it comes."""

MEASUREMENTS = 100
"""Names of a script's metrics that are kept for the record."""

PROGRESS_SECONDS = 0.2
"""The shortest time between two progress events; the longest is that of one update or one batch of
`score`."""


def memory_peak_bytes() -> int:
    """Return the most memory that this process held so far, and the largest process that it ran, such as a script."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(who).ru_maxrss for who in both) * 1024  # Linux counts in KiB


@dataclass(frozen=True)
class Chosen:
    """What was best in a training: the step, and what else `evaluated` was told."""

    step: int
    how: Mapping[str, Any]


@dataclass
class Training(Generic[Line]):
    """One run of `train`: what a model trains with, and what becomes of it.

    A model's `train` calls `progress` as it goes and `evaluated` for each candidate. The best
    candidate so far lies complete in `.model.partial` of the session and becomes `model` with
    `finish`. After `train_again` the same `train` is called once more, with more lines and `chosen` set: it repeats
    what was best, and its one candidate takes the other's place without being scored.

    Attributes:
        session: the session's folder.
        score: a predictor's score on the eval lines, higher is better; calls its second argument between batches.
        score_name: what that score is called.
        base: the folder of the predictor to start from; None: from nothing.
        chosen: what was best, when it is repeated; None: it is to be found.
        about: what people are told beside the progress, of a training in two parts.
        scored: what `score` in full said of the best candidate before it was trained again, for the record.
    """

    session: Path
    score: Callable[[Any, Callable[[], Any]], float]
    score_name: str
    parameters: Mapping[str, Any]
    seed: int
    train: Sequence[Line]
    eval: Sequence[Line]
    heartbeat: Heartbeat
    device: Device
    base: Path | None = None
    chosen: Chosen | None = None
    about: str | None = None
    scored: Mapping[str, Any] | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    candidates: list[tuple[str, float]] = field(default_factory=list)
    measurements: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    best_step: int = 0
    best_score: float = -1.0
    best_how: Mapping[str, Any] = field(default_factory=dict)
    best_named: str = ""
    steps: int = 0
    started: float = field(default_factory=time.monotonic)
    _phase_started: float = field(default_factory=time.monotonic)
    _last_progress: float = float("-inf")
    _progress: tuple[float, float] = (0, 0)

    @property
    def partial(self) -> Path:
        """Where the best predictor so far lies."""
        return self.session / ".model.partial"

    def progress(self, done: float, total: float) -> None:
        """Tell how far the training is; between its ends at most once in `PROGRESS_SECONDS`.

        Numbers that are not finite are ignored.
        """
        if not (math.isfinite(done) and math.isfinite(total)):
            return
        now = time.monotonic()
        moved = (done, total) != self._progress
        self._progress = (done, total)
        self.heartbeat.beat(done, total)
        at_an_end = done in (0, total) and (moved or self._last_progress == float("-inf"))
        if at_an_end or now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            events.progress(_short(done), _short(total), seconds=now - self._phase_started, message=self.about)

    def alive(self) -> None:
        """Give a sign of life where nothing is to be counted."""
        self.progress(*self._progress)

    def measured(self, name: str, value: float, step: int | None) -> None:
        """Tell a number of the training's own, the loss for instance, and keep it for the record.

        Args:
            name: of any kind; the first `MEASUREMENTS` different ones are kept.
            value: finite.
            step: where in the training; None: one after the last.
        """
        events.metric(name, value, step)
        if name in self.measurements or len(self.measurements) < MEASUREMENTS:
            points = self.measurements.setdefault(name, [])
            points.append(((points[-1][0] if points else 0) + 1 if step is None else step, value))
            if len(points) > 20 * CURVE_POINTS:
                points[:] = thinned(points, 10 * CURVE_POINTS, keep=step or 0)

    def evaluated(
        self, predictor: Any, *, step: int, how: Mapping[str, Any] | None = None, named: str | None = None
    ) -> bool:
        """Score a predictor on the eval lines and keep it if it is the best so far; when the best is repeated, keep it.

        Args:
            predictor: the candidate.
            step: by which the curve and the record name it: as many updates or iterations as were made.
            how: what besides `step` it takes to repeat it, as JSON can hold it.
            named: what it is, of a candidate beside the model whose curve is drawn: it is no point of that curve, and
                the record has its score under this name.

        Returns:
            Whether it is the best.
        """
        if self.chosen is not None:
            self.device.sample()
            self._keep(predictor)
            return True
        value = self.score(predictor, self.alive)
        self.device.sample()
        if named is None:
            self.steps = step
            self.curve.append((step, value))
            events.metric(self.score_name, value, step)
        else:
            self.candidates.append((named, value))
            events.say(f"{self.score_name} of {named}: {value:.4f}")
        if value <= self.best_score:
            return False
        self.best_step, self.best_score, self.best_how, self.best_named = step, value, dict(how or {}), named or ""
        self._keep(predictor)
        return True

    def _keep(self, predictor: Any) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        predictor.to_disk(self.partial)

    def train_again(self, lines: Sequence[Line], scored: Mapping[str, Any]) -> None:
        """Prepare to repeat what was best with other train lines.

        Args:
            lines: to train with.
            scored: what the record says of the best candidate's scores, since the one that takes its place has none.
        """
        self.train, self.scored = lines, scored
        self.about = f"training again, on all {len(lines):,} lines"
        self.chosen = Chosen(self.best_step, self.best_how)
        self._phase_started = time.monotonic()
        self._progress, self._last_progress = (0, 0), float("-inf")

    def finish(self) -> dict[str, Any]:
        """Put the best predictor in its place.

        Returns:
            The contract's result of `train`, which is also written to `training.json`.
        """
        if self._progress[1] > 0:
            self.progress(self._progress[1], self._progress[1])
        files.replace_folder(self.partial, self.session / "model")
        result: dict[str, Any] = {
            "best_step": self.best_step,
            "steps": self.steps,
            "best_score": self.best_score,
            "score_name": self.score_name,
            "seconds": round(time.monotonic() - self.started, 3),
            "seed": self.seed,
            "parameters": dict(self.parameters),
            "curve": [list(point) for point in thinned(self.curve, CURVE_POINTS, keep=self.best_step)],
            "device": self.device.name,
            "memory_peak_bytes": memory_peak_bytes(),
        }
        if self.best_how:
            result["chosen"] = dict(self.best_how)
        if self.candidates:
            result["candidates"] = [list(one) for one in self.candidates[:CURVE_POINTS]]
        if self.best_named:
            result["best_is"] = self.best_named
        if self.chosen is not None:
            result["trained_again_on"] = len(self.train)
        if self.device.pool is not None:
            self.device.sample()
            result["gpu_peak_bytes"] = self.device.peak_bytes
        record = {**result, "finished": time.time()}
        if self.scored is not None:
            record["scored"] = dict(self.scored)
        if self.measurements:
            record["measurements"] = {
                name: thinned(points, CURVE_POINTS, keep=points[-1][0]) for name, points in self.measurements.items()
            }
        files.write_json(self.session / "training.json", record)
        self.heartbeat.beat(self.steps, self.steps, state="done")
        return result


def thinned(curve: Sequence[tuple[int, float]], most: int, *, keep: int) -> list[tuple[int, float]]:
    """At most `most` > 3 points of a curve, evenly chosen, in order: with the first, the last and that of a step. Pure.

    Args:
        curve: points by step, in order.
        most: how many at most.
        keep: the step whose point is kept, if there is one.
    """
    if len(curve) <= most:
        return list(curve)
    last, even = len(curve) - 1, most - 2
    places = {place * last // even for place in range(even + 1)}
    places |= {place for place, (step, _) in enumerate(curve) if step == keep}
    return [curve[place] for place in sorted(places)]


def _short(number: float) -> float:
    return number if isinstance(number, int) else round(number, 2)
