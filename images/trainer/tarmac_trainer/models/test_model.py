"""A model for testing a pipeline: it knows by heart the entities it was shown, and is trained at
once.

It takes any readable line, needs no named_entity, and leaves the same outputs as a real model. Its
parameters exist for tests of pipelines only: a session can be made to last, to hold a known amount
of GPU memory, to hang, to take more GPU memory than its share, or to fail. One that lasts ends well at
once when the file `/tmp/finish` appears in its container, so that a test need not wait for it.
"""

import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import override

from tarmac_trainer.model import Choice, Model, Number, Scores
from tarmac_trainer.runtime import events, stopping
from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES, Device
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import offsets
from tarmac_trainer.text.entities import Sentence, read_sentence, tags_of
from tarmac_trainer.text.spans import count_spans, predict_spans

REPORT_SECONDS = 0.2

GROWTH_STEPS = 8
"""The memory is taken in so many pieces."""

GROWTH_SECONDS = 2.0
"""All of it is taken after so long, or after half of the training where that is shorter."""

MIB = 2**20

LOOP = "pretence"
"""By which a checkpoint knows it; its steps are the seconds that have passed."""

FINISH = Path(tempfile.gettempdir(), "finish")
"""Where this file exists, the training takes no longer."""


class TestModel(Model[Sentence]):
    """See the module."""

    name = "test_model"
    title = "recognises the entities it was shown, for testing a pipeline"
    parameters = {
        "train_seconds": Number(0, 0, 86400, "seconds that the training takes, for tests of pipelines"),
        "fail": Choice(
            ("prep", "train", "save", "eval"),
            "the step that fails on purpose, for tests of pipelines",
        ),
        "gpu_memory_mib": Number(
            0, 0, 200_000, "GPU memory to hold besides CUDA's own, in MiB, for tests of pipelines", whole=True
        ),
        "hang_after": Number(
            0, 0, 86400, "seconds of train_seconds after which there is no progress; 0: never; for tests of pipelines"
        ),
        "checkpoint_seconds": Number(
            0, 0, 86400, "seconds between two checkpoints; 0: as for other models; for tests of pipelines"
        ),
        "overrun_mib": Number(
            0,
            0,
            200_000,
            "GPU memory to take above the reservation, half way through, in MiB, for tests of pipelines",
            whole=True,
        ),
    }
    key = f"sentence|{offsets.SPANS}"
    tags_key = "named_entity"
    example = {"sentence": "Ada Lovelace lived in London ."}
    spacy_on_gpu = False

    @override
    def read(self, value: dict[str, Any]) -> Sentence | None:
        if "sentence" in value:
            return read_sentence(value)
        return offsets.read_text(value) if offsets.TEXT in value and offsets.SPANS in value else None

    @override
    def load_line(self, value: dict[str, Any]) -> Sentence:
        return offsets.load(value)

    @override
    def learned(self, line: str) -> str:
        return offsets.learned(line)

    @override
    def check(self, train: Sequence[Sentence]) -> None:
        """Every data set will do."""

    @override
    def train(self, training: Training[Sentence]) -> None:
        """Pretend to train for `train_seconds`, then keep a pipeline of the entities in the train
        lines."""
        import spacy

        _pretend(training)
        entities = {
            (sentence.words[start:end], kind) for sentence in training.train for start, end, kind in sentence.spans
        }
        nlp = spacy.blank("en")
        # Sorted: a set has another order in every process, and equal requests are to leave equal
        # models.
        patterns = [{"label": kind, "pattern": [{"ORTH": word} for word in words]} for words, kind in sorted(entities)]
        if patterns:  # the ruler warns about being used without any
            nlp.add_pipe("entity_ruler").add_patterns(patterns)
        training.evaluated(nlp, step=1)
        training.progress(1, 1)

    @override
    def score(self, predictor: Any, lines: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return count_spans(predictor, lines, tick=tick).scores("entity")

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"named_entity": tags_of(spans, len(words))} for words, spans in predict_spans(predictor, values)]


def _pretend(training: Training[Any]) -> None:
    """Let `train_seconds` pass with signs of life, taking GPU memory meanwhile.

    Raises:
        cupy.cuda.memory.OutOfMemoryError: the memory does not fit in the share or the device.
    """
    parameters = training.parameters
    seconds, hang_after = float(parameters["train_seconds"]), float(parameters["hang_after"])
    held, extra = int(parameters["gpu_memory_mib"]) * MIB, int(parameters["overrun_mib"]) * MIB
    if (held or extra) and training.device.pool is None:
        events.say("gpu_memory_mib and overrun_mib are ignored: this training runs on the CPU")
        held = extra = 0
    ballast = Ballast(training.device, held, extra, seconds=seconds)
    if training.writer is not None and parameters["checkpoint_seconds"]:
        training.writer.every = parameters["checkpoint_seconds"]
    resumed = training.gone_on(LOOP)
    before = 0.0 if resumed is None else float(resumed.values["state"]["elapsed"])
    started = time.monotonic() - before
    hangs = False
    with stopping.delayed():
        # SIGTERM is delayed before the first progress is told: a training that is stopped then leaves a checkpoint.
        training.progress(before, max(seconds, 1))
        while (elapsed := time.monotonic() - started) < seconds and not FINISH.exists():
            ballast.grow(elapsed)
            if hangs := 0 < hang_after <= elapsed:
                break
            time.sleep(min(REPORT_SECONDS, seconds - elapsed))
            done = min(time.monotonic() - started, seconds)
            training.progress(done, seconds)
            training.offer(LOOP, int(done), partial(_state, done))
    if hangs:
        _hang()
    ballast.grow(seconds)


def _state(elapsed: float) -> tuple[dict[str, float], dict[str, Any]]:
    return {"elapsed": elapsed}, {}


class Ballast:
    """GPU memory that is held for nothing."""

    def __init__(self, device: Device, size: int, overrun: int, *, seconds: float) -> None:
        """Take nothing yet.

        Args:
            device: a GPU, unless both sizes are 0.
            size: bytes to take through CuPy's pool, which keeps to the share.
            overrun: bytes to take at half time above the share, past the pool.
            seconds: that the training takes, 0 or more.
        """
        self._device = device
        self._size = size
        self._overrun = overrun
        self._half = seconds / 2
        self._taken = 0
        self._pieces: list[Any] = []

    def grow(self, elapsed: float) -> None:
        """Hold what is due `elapsed` seconds after the start. Idempotent.

        Raises:
            cupy.cuda.memory.OutOfMemoryError: it does not fit in the share or the device.
        """
        growth = min(self._half, GROWTH_SECONDS)
        step = GROWTH_STEPS if elapsed >= growth else int(elapsed / growth * GROWTH_STEPS) + 1
        due = self._size * step // GROWTH_STEPS
        if due > self._taken:
            self._pieces.append(self._device.pool.malloc(due - self._taken))
            self._taken = due
            self._device.sample()
        if self._overrun and elapsed >= self._half:
            self._pieces.append(self._beyond_the_share())
            self._overrun = 0

    def _beyond_the_share(self) -> Any:
        import cupy

        share_left = 0
        if self._device.limit_bytes is not None:
            held = CUDA_CONTEXT_BYTES + int(self._device.pool.total_bytes())
            share_left = max(self._device.limit_bytes - held, 0)
        return cupy.cuda.Memory(share_left + self._overrun)


def _hang() -> NoReturn:
    events.say("no progress from here on, because parameters.hang_after asks for it")
    while True:
        signal.pause()


MODELS = {TestModel.name: TestModel()}
