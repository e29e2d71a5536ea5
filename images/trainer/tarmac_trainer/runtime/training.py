"""A training as it goes: events, signs of life, the curve, the best candidate."""

import math
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tarmac_trainer.runtime import checkpoint, events, files, stopping
from tarmac_trainer.runtime.device import Device
from tarmac_trainer.runtime.errors import TrainerError
from tarmac_trainer.runtime.health import Heartbeat

if TYPE_CHECKING:
    import numpy as np

Line = TypeVar("Line")
Made = TypeVar("Made")

CURVE_POINTS = 500
"""Points of a curve that are kept for the record; each is a line of the log as it comes."""

LOSS = "loss"
"""What the mean loss of the updates since the scoring before is called."""

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

    A `train` that takes long has loops that call `offer` after each step, within `stopping.delayed`, and that ask
    `gone_on` for the state to begin with; `resume` has taken all else out of the checkpoint before.

    Attributes:
        session: the session's folder.
        score: a predictor's scores on the eval lines by name; calls its second argument between batches.
        score_name: the one that ranks predictors, higher is better; the others are told as curves beside it.
        base: the folder of the predictor to start from; None: from nothing.
        chosen: what was best, when it is repeated; None: it is to be found.
        about: what people are told beside the progress, of a training in two parts.
        scored: what `score` in full said of the best candidate before it was trained again, for the record.
        writer: of checkpoints; None: there are none.
        resumed: how often the training went on from a checkpoint, from which step the last time, and how many seconds
            of training were not done again for that; empty: it never did.
    """

    session: Path
    score: Callable[[Any, Callable[[], Any]], Mapping[str, float]]
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
    writer: checkpoint.Writer | None = None
    resumed: Mapping[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _counted_from: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), 0))
    _last_progress: float = float("-inf")
    _progress: tuple[float, float] = (0, 0)
    _ended: list[str] = field(default_factory=list)
    _lost: float = 0.0
    _updates: int = 0
    _going_on: tuple[str, checkpoint.Checkpoint] | None = None

    @property
    def partial(self) -> Path:
        """Where the best predictor so far lies."""
        return self.session / ".model.partial"

    @property
    def stages(self) -> Path:
        """Where that lies which `once` has made."""
        return self.session / ".stages.partial"

    # ---- checkpoints -------------------------------------------------------------------------------------------------

    def resume(self, key: Mapping[str, str]) -> None:
        """Write checkpoints from now on, and go on from the one that an earlier attempt left, if there is one.

        Args:
            key: what the checkpoint has to belong to.
        """
        self.writer = checkpoint.Writer(self.session, key)
        found = checkpoint.read(self.session, key, {"best": self.partial, "stages": self.stages})
        if found is None:
            return
        values = found.values
        try:
            loop, at, seconds = values["loop"], int(values["at"]), values["seconds"]
            best, chosen, before = values["best"], values["chosen"], values["resumed"]
            curve = [(int(step), float(value)) for step, value in values["curve"]]
            told = {"best_step": best["step"], "best_score": best["score"], "best_how": best["how"], "curve": curve}
            told |= {"best_named": best["named"], "about": values["about"]}
            told |= {"candidates": [(str(named), float(value)) for named, value in values["candidates"]]}
            told["measurements"] = {
                name: [(int(step), float(value)) for step, value in points]
                for name, points in values["measurements"].items()
            }
            told |= {"_lost": float(values["lost"]["sum"]), "_updates": int(values["lost"]["updates"])}
            told |= {"steps": values["steps"], "scored": values["scored"], "_ended": list(values["ended"])}
            told |= {"chosen": None if chosen is None else Chosen(**chosen)}
            times, saved = before.get("times", 0) + 1, before.get("seconds_saved", 0) + seconds
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            checkpoint.put_aside(self.session, f"it is broken ({type(error).__name__}: {error})")
            shutil.rmtree(self.stages, ignore_errors=True)
            return
        for name, value in told.items():
            setattr(self, name, value)
        self.started -= seconds
        self.resumed = {"times": times, "step": at, "seconds_saved": round(saved, 3)}
        self._going_on = (loop, found)
        where = "" if self.chosen is None else " of the training on all lines"
        events.say(f"went on from step {at:,}{where} of an earlier attempt: {events.in_words(seconds)} saved")
        # Who follows this attempt alone has the whole curve.
        for name, curve in ((self.score_name, self.curve), *self.measurements.items()):
            for step, value in thinned(curve, CURVE_POINTS, keep=self.best_step):
                events.metric(name, value, step, quiet=name not in (self.score_name, LOSS))

    def gone_on(self, loop: str) -> checkpoint.Checkpoint | None:
        """What the loop of this name told `offer` when the checkpoint was written that is gone on from; None: begin."""
        if self._going_on is None or self._going_on[0] != loop:
            return None
        found, self._going_on = self._going_on[1], None
        return found

    def refused(self, why: Exception) -> TrainerError:
        """Put a checkpoint aside whose state does not fit, and make what to fail with: the next attempt begins anew."""
        checkpoint.put_aside(self.session, f"{type(why).__name__}: {why}")
        return TrainerError(f"the checkpoint of an earlier attempt does not fit; the next attempt begins anew: {why}")

    def offer(
        self, loop: str, at: int, state: "Callable[[], tuple[Mapping[str, Any], Mapping[str, np.ndarray]]]"
    ) -> None:
        """Write a checkpoint if it is time for one. Where SIGTERM came it always is, and ends the process.

        Args:
            loop: the name of the loop.
            at: the steps that it has done.
            state: gives what `gone_on` is to give a later attempt as `values["state"]` and `arrays`.
        """
        if self.writer is None and stopping.asked():
            stopping.end()
        if self.writer is None or not (stopping.asked() or self.writer.due()):
            return
        now = time.monotonic()
        values, arrays = state()
        record = {
            "loop": loop,
            "at": at,
            "state": values,
            "best": {
                "step": self.best_step,
                "score": self.best_score,
                "how": self.best_how,
                "named": self.best_named,
            },
            "curve": self.curve,
            "measurements": self.measurements,
            "lost": {"sum": float(self._lost), "updates": self._updates},
            "candidates": self.candidates,
            "about": self.about,
            "steps": self.steps,
            "ended": self._ended,
            "chosen": None if self.chosen is None else vars(self.chosen),
            "scored": self.scored,
            "resumed": self.resumed,
            "seconds": now - self.started,
        }
        written = self.writer.write(record, arrays, {"best": self.partial, "stages": self.stages})
        if stopping.asked():
            if written:
                events.say(f"a checkpoint is written: the next attempt goes on from step {at:,}")
            stopping.end()

    def has_ended(self, loop: str) -> bool:
        """Whether a loop was over when the checkpoint was written that was gone on from."""
        return loop in self._ended

    def end_loop(self, loop: str) -> None:
        """Note that a loop is over."""
        self._ended.append(loop)

    def once(
        self, name: str, make: Callable[[], Made], write: Callable[[Made, Path], None], load: Callable[[Path], Made]
    ) -> Made:
        """Make something that takes long, or take it out of the checkpoint.

        Args:
            name: of a folder.
            make: makes it.
            write: writes it into a folder that is there, so that `load` gives the same.
            load: reads it from there.
        """
        folder = self.stages / name
        if folder.is_dir():
            return load(folder)
        made = make()
        if self.writer is not None:
            folder.mkdir(parents=True)
            write(made, folder)
        return made

    # ---- what a training tells ---------------------------------------------------------------------------------------

    def progress(self, done: float, total: float) -> None:
        """Tell how far the training is; between its ends at most once in `PROGRESS_SECONDS`.

        The time left is estimated from what was done since the first call with this total: what came before it, such as
        the loading of weights or an earlier attempt, says nothing of the steps to come.

        Numbers that are not finite are ignored.
        """
        if not (math.isfinite(done) and math.isfinite(total)):
            return
        now = time.monotonic()
        moved = (done, total) != self._progress
        if total != self._progress[1] or done < self._progress[0]:
            self._counted_from = (now, done)
        self._progress = (done, total)
        self.heartbeat.beat(done, total)
        at_an_end = done in (0, total) and (moved or self._last_progress == float("-inf"))
        if at_an_end or now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            since, before = self._counted_from
            events.progress(_short(done), _short(total), seconds=now - since, before=_short(before), message=self.about)

    def alive(self) -> None:
        """Give a sign of life where nothing is to be counted."""
        self.progress(*self._progress)

    def lost(self, loss: float) -> None:
        """Take the loss of one update; `evaluated` tells the mean of those since the scoring before."""
        self._lost += loss
        self._updates += 1

    def _tell_loss(self, step: int) -> None:
        if self._updates and math.isfinite(mean := float(self._lost) / self._updates):
            self.measured(LOSS, mean, step)
        self._lost, self._updates = 0.0, 0

    def measured(self, name: str, value: float, step: int | None, *, quiet: bool = False) -> None:
        """Tell a number of the training's own, the loss for instance, and keep it for the record.

        Args:
            name: of any kind; the first `MEASUREMENTS` different ones are kept.
            value: finite.
            step: where in the training; None: one after the last.
            quiet: whether the log does without it.
        """
        events.metric(name, value, step, quiet=quiet)
        if name in self.measurements or len(self.measurements) < MEASUREMENTS:
            points = self.measurements.setdefault(name, [])
            points.append(((points[-1][0] if points else 0) + 1 if step is None else step, value))
            if len(points) > 20 * CURVE_POINTS:
                points[:] = thinned(points, 10 * CURVE_POINTS, keep=step or 0)

    def evaluated(
        self,
        predictor: Any,
        *,
        step: int,
        how: Mapping[str, Any] | None = None,
        named: str | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> bool:
        """Score a predictor on the eval lines and keep it if it is the best so far; when the best is repeated, keep it.

        Args:
            predictor: the candidate.
            step: by which the curve and the record name it: as many updates or iterations as were made.
            how: what besides `step` it takes to repeat it, as JSON can hold it.
            named: what it is, of a candidate beside the model whose curve is drawn: it is no point of that curve, and
                the record has its score under this name.
            meanwhile: is called now and then while it is scored, to `offer` a checkpoint from before the scoring.

        Returns:
            Whether it is the best.
        """
        if self.chosen is not None:
            self.device.sample()
            self._keep(predictor)
            return True

        def tick() -> None:
            self.alive()
            if meanwhile is not None:
                meanwhile()

        scores = self.score(predictor, tick)
        value = scores[self.score_name]
        self.device.sample()
        if named is None:
            self.steps = step
            self.curve.append((step, value))
            events.metric(self.score_name, value, step)
            self._tell_loss(step)
            for name, other in scores.items():
                if name != self.score_name:
                    self.measured(name, other, step, quiet=True)
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
        self._ended = []
        shutil.rmtree(self.stages, ignore_errors=True)
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
        if self.resumed:
            result["resumed"] = dict(self.resumed)
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
        shutil.rmtree(self.stages, ignore_errors=True)
        if self.writer is not None:
            self.writer.remove()
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
