"""A training that is killed goes on where it was, and its model is the one that it would have been."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NINE, SAMPLE, Session

from tarmac_trainer.runtime import checkpoint

ALWAYS = "checkpoint.EVERY_SECONDS, checkpoint.MOST_OF_THE_TIME = 0, float('inf')"
"""For the driver below: a checkpoint after each step."""

DRIVER = """
import os, sys
from tarmac_trainer.cli import main
from tarmac_trainer.runtime import checkpoint
from tarmac_trainer.runtime.training import Training
{settings}
progress, begun, before, sent = Training.progress, 0, None, False

def interrupted(self, done, total):
    global begun, before, sent
    progress(self, done, total)
    begun += done == 0 != before
    before = done
    if not sent and begun == {begun} and done >= {step}:
        sent = True
        os.kill(os.getpid(), {number})

Training.progress = interrupted
sys.exit(main(["train", "--session", sys.argv[1]]))
"""
"""Trains, and gets a signal at a step of one of the counts, each of which begins at 0."""

SMALL = {"max_steps": 12, "eval_frequency": 4, "batch_size": 8}
SENTIMENTS = "".join(
    json.dumps({"sentence": f"{'fine' if i % 2 else 'bad'} thing number {i}", "sentiment": {"binary": i % 2}}) + "\n"
    for i in range(40)
)
RATINGS = "".join(
    json.dumps({"user": f"u{user}", "item": f"i{item}", "count": 1 + (user * item) % 3}) + "\n"
    for user in range(30)
    for item in range(20)
    if (user * 7 + item * 3) % 4 == 0
)


def prepared(session: Session, model: str = "named_entity_recognition", lines: str | None = None, **more: Any) -> None:
    content = SAMPLE.read_text() if lines is None else lines
    session.request({"d": {"train": session.put(content), "eval": None}}, model=model, **more)
    assert session.run("prep").code == 0


def interrupt(session: Session, number: int, at: tuple[int, int] | None, settings: str = "") -> str:
    """Train and get a signal.

    Args:
        number: of the signal.
        at: a step, and the number of the count (each begins at 0) that it is of; None: the settings send the signal.
        settings: code for the driver.

    Returns:
        What was printed.
    """
    step, begun = at or (0, -1)
    code = DRIVER.format(settings=settings, step=step, begun=begun, number=int(number))
    command = [sys.executable, "-P", "-c", code, str(session.folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == (-number if number == signal.SIGKILL else 128 + number), done.stdout + done.stderr
    return done.stdout


def model_of(session: Session) -> dict[str, str]:
    folder = session.folder / "model"
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("model", "lines", "parameters", "number", "settings", "at"),
    [
        # What is best is repeated on all lines after the network's steps: once killed before, once after that began.
        ("named_entity_recognition", None, {**SMALL, "disguise": 0.5}, signal.SIGKILL, ALWAYS, (6, 1)),
        (
            "named_entity_recognition",
            None,
            {**SMALL, "perceptron": "never"},
            signal.SIGKILL,
            ALWAYS,
            (2, 2),
        ),
        ("sentiment_analysis_binary", SENTIMENTS, SMALL, signal.SIGTERM, "", (6, 1)),
        ("collaborative_filtering", RATINGS, {"eval_frequency": 2}, signal.SIGKILL, ALWAYS, (20, 1)),
    ],
    ids=["killed", "killed-while-repeated", "stopped", "recommender"],
)
def test_the_model_is_the_one_of_a_training_that_was_not_interrupted(
    make_session: Callable[[str], Session],
    model: str,
    lines: str | None,
    parameters: dict[str, Any],
    number: int,
    settings: str,
    at: tuple[int, int],
) -> None:
    one, other = make_session("one"), make_session("other")
    for session in (one, other):
        prepared(session, model, lines, parameters=parameters, seed=3)
    wanted = one.run("train").result
    out = interrupt(other, number, at, settings)
    assert not (other.folder / "model").exists()
    assert ("a checkpoint is written: the next attempt goes on from step" in out) == (number == signal.SIGTERM)
    outcome = other.run("train")
    found, out = outcome.result, outcome.out

    assert model_of(other) == model_of(one)
    same = ("best_step", "steps", "best_score", "curve", "candidates", "best_is", "chosen", "trained_again_on")
    assert {key: found.get(key) for key in same} == {key: wanted.get(key) for key in same}
    resumed = found["resumed"]
    assert (resumed["times"], "resumed" in wanted) == (1, False)
    assert resumed["step"] > 0
    assert resumed["seconds_saved"] > 0
    assert f"went on from step {resumed['step']:,}" in out
    # Who sees this attempt alone sees the whole curve, each point once.
    score = found["score_name"]
    points = [(point["step"], point["value"]) for point in outcome.of("metric") if point["name"] == score]
    assert points == [tuple(point) for point in found["curve"]]
    assert measured(other) == measured(one)
    assert not (other.folder / checkpoint.FOLDER).exists()


def measured(session: Session) -> dict[str, Any]:
    """What a training measured beside its score, of its record."""
    found: dict[str, Any] = json.loads((session.folder / "training.json").read_text()).get("measurements", {})
    return found


def left(session: Session, elapsed: float = 3599.9) -> Path:
    """A session whose training was interrupted shortly before its end; returns its checkpoint."""
    prepared(session, "test_model", NINE, parameters={"train_seconds": 3600})
    record = {
        "loop": "pretence",
        "at": int(elapsed),
        "state": {"elapsed": elapsed},
        "curve": [],
        "measurements": {},
        "lost": {"sum": 0.0, "updates": 0},
        "candidates": [],
        "about": None,
        "steps": 0,
        "ended": [],
    }
    best = {"step": 0, "score": -1.0, "how": {}, "named": ""}
    record |= {"best": best, "chosen": None, "scored": None, "resumed": {}, "seconds": 240.0}
    writer = checkpoint.Writer(session.folder, checkpoint.key(session.folder))
    assert writer.write(record, {"numbers": np.arange(3)}, {"best": session.folder / "data"})
    return session.folder / checkpoint.FOLDER / checkpoint.FILE


@pytest.mark.usefixtures("mlruns")
def test_the_time_saved_is_told_and_recorded(session: Session) -> None:
    import mlflow

    left(session)
    outcome = session.run("train")
    assert "went on from step 3,599 of an earlier attempt: 4 min saved" in outcome.out
    assert outcome.result["resumed"] == {"times": 1, "step": 3599, "seconds_saved": 240.0}
    assert outcome.result["seconds"] > 240
    saved = session.run("save").result
    tags = mlflow.get_run(saved["mlflow_run_id"]).data.tags
    assert tags["tarmac.resumed"] == "once, last from step 3,599; 4 min saved"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    path.write_bytes(content)


def pickled(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as packed, packed.open("arrays/evil.npy", "w") as member:
        np.lib.format.write_array(member, np.array([{}], dtype=object), allow_pickle=True)


def outside(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("folders/best/../../outside", "")


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("arrays/large.npy", b"0" * 2**20, compress_type=zipfile.ZIP_DEFLATED)


def of_other_data(path: Path) -> None:
    with (path.parent.parent / "data" / "train.jsonl").open("a") as data:
        data.write('{"words": ["one", "more"], "spans": []}\n')


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (truncated, "it is broken"),
        (altered, "it is broken"),
        (pickled, "it is broken"),
        (outside, "it has a file in a strange place (folders/best/../../outside)"),
        (compressed, "it is compressed"),
        (of_other_data, "it is of another training: another data"),
        ({"TARMAC_IMAGE": "another@sha256:1"}, "it is of another training: another image"),
        ({"OMP_NUM_THREADS": "7"}, "it is of another training: another number of threads"),
    ],
    ids=["truncated", "altered", "pickled", "outside", "compressed", "data", "image", "threads"],
)
def test_a_checkpoint_that_does_not_fit_is_put_aside_with_a_sentence(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[Path], None] | dict[str, str],
    why: str,
) -> None:
    path = left(session)
    # Begun anew, it takes no time.
    monkeypatch.setattr("tarmac_trainer.models.test_model.FINISH", tmp_path)
    if isinstance(change, dict):
        for name, value in change.items():
            monkeypatch.setenv(name, value)
    else:
        change(path)
    outcome = session.run("train")
    said = "the checkpoint of an earlier attempt is put aside and the training begins anew"
    assert f"{said}: {why}" in outcome.out
    assert "resumed" not in outcome.result
    assert (session.folder / checkpoint.ASIDE / checkpoint.FILE).exists()
    assert not path.exists()
    assert not (session.folder / "outside").exists()


def test_a_checkpoint_that_cannot_be_written_ends_no_training_and_the_last_one_stays(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = left(session)
    before = path.read_bytes()
    writer = checkpoint.Writer(session.folder, checkpoint.key(session.folder))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        assert not writer.write({}, {}, {})
    assert capsys.readouterr().out.count("no checkpoint can be written") == 1
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_checkpoints_are_written_each_minute_at_most_and_take_a_twentieth_of_the_time_at_most(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 59.9, 60.0, 60.0, 70.0, 269.9, 270.0))
    monkeypatch.setattr("tarmac_trainer.runtime.checkpoint.time.monotonic", lambda: next(clock))
    writer = checkpoint.Writer(session.folder, {})
    assert (writer.due(), writer.due()) == (False, True)
    writer.write({}, {}, {})  # it takes 10 s
    assert (writer.due(), writer.due()) == (False, True)
