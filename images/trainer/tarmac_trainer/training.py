"""A training as it goes: events, signs of life, the curve, the best pipeline; and the loop."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarmac_trainer import events, files
from tarmac_trainer.device import Device
from tarmac_trainer.health import Heartbeat
from tarmac_trainer.readers import Sentence
from tarmac_trainer.scoring import score

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example
    from thinc.api import Optimizer

PROGRESS_SECONDS = 0.2
"""The shortest time between two progress events; the longest is that of one update or one batch of
`score`."""

SCORE_NAME = "f1"


@dataclass
class Training:
    """One run of `train`: what a model trains with, and what becomes of it.

    A model's `train` calls `progress` as it goes and `evaluated` for each candidate. The best
    candidate so far lies complete in `.model.partial` of the session and becomes `model` with
    `finish`.
    """

    session: Path
    parameters: Mapping[str, Any]
    seed: int
    train: Sequence[Sentence]
    eval: Sequence[Sentence]
    heartbeat: Heartbeat
    device: Device
    curve: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best_score: float = -1.0
    steps: int = 0
    started: float = field(default_factory=time.monotonic)
    _last_progress: float = float("-inf")
    _progress: tuple[float, float] = (0, 0)

    @property
    def partial(self) -> Path:
        """Where the best pipeline so far lies."""
        return self.session / ".model.partial"

    def progress(self, done: float, total: float) -> None:
        """Tell how far the training is; between its ends at most once in `PROGRESS_SECONDS`."""
        now = time.monotonic()
        moved = (done, total) != self._progress
        self._progress = (done, total)
        self.heartbeat.beat(done, total)
        at_an_end = done in (0, total) and (moved or self._last_progress == float("-inf"))
        if at_an_end or now - self._last_progress >= PROGRESS_SECONDS:
            self._last_progress = now
            events.progress(_short(done), _short(total), seconds=now - self.started)

    def evaluated(self, nlp: "Language", *, step: int) -> bool:
        """Score a pipeline on the eval lines and keep it if it is the best so far.

        Returns:
            Whether it is the best.
        """
        scores = score(nlp, self.eval, tick=lambda: self.progress(*self._progress))
        value = scores.overall()["f1"]
        self.steps = step
        self.curve.append((step, value))
        self.device.sample()
        events.metric(SCORE_NAME, value, step)
        if value <= self.best_score:
            return False
        self.best_step, self.best_score = step, value
        shutil.rmtree(self.partial, ignore_errors=True)
        nlp.to_disk(self.partial)
        return True

    def finish(self) -> dict[str, Any]:
        """Put the best pipeline in its place.

        Returns:
            The contract's result of `train`, which is also written to `training.json`.
        """
        files.replace_folder(self.partial, self.session / "model")
        result: dict[str, Any] = {
            "best_step": self.best_step,
            "steps": self.steps,
            "best_score": self.best_score,
            "score_name": SCORE_NAME,
            "seconds": round(time.monotonic() - self.started, 3),
            "seed": self.seed,
            "parameters": dict(self.parameters),
            "curve": [list(point) for point in self.curve],
            "device": self.device.name,
        }
        if self.device.pool is not None:
            self.device.sample()
            result["gpu_peak_bytes"] = self.device.peak_bytes
        files.write_json(self.session / "training.json", {**result, "finished": time.time()})
        self.heartbeat.beat(self.steps, self.steps, state="done")
        return result


def fit(
    training: Training,
    nlp: "Language",
    optimizer: "Optimizer",
    batches: "Iterator[list[Example]]",
    *,
    max_steps: int,
    eval_frequency: int,
    patience: int,
    dropout: float,
) -> None:
    """Update a pipeline until an evaluation stops improving, as spaCy's own loop does.

    spaCy's `train_while_improving` updates once more than `max_steps` and leaves the last updates
    without an evaluation; this one evaluates after each `eval_frequency` updates and after the
    last.

    Args:
        training: gets the progress and the candidates.
        nlp: initialised; holds the last, not the best weights afterwards.
        optimizer: its averages, where it keeps any, are what is evaluated and saved.
        batches: endless; made one by one, inside spaCy's memory zone.
        max_steps: updates at most, at least 1.
        eval_frequency: updates between two evaluations.
        patience: updates since the best evaluation after which it ends.
        dropout: share of features left out in an update, 0 to below 1.
    """
    training.progress(0, max_steps)
    for step in range(1, max_steps + 1):
        # Words of the batch are forgotten after it: else invented ones would pile up in the model.
        with nlp.memory_zone():
            nlp.update(next(batches), drop=dropout, sgd=optimizer)
        training.progress(step, max_steps)
        if step % eval_frequency and step != max_steps:
            continue
        with nlp.use_params(optimizer.averages or {}):
            training.evaluated(nlp, step=step)
        if step - training.best_step >= patience:
            events.say(f"no better f1 for {step - training.best_step} steps: the training ends here")
            return


def _short(number: float) -> float:
    return number if isinstance(number, int) else round(number, 2)
