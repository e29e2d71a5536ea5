"""A kind of model of one's own with PyTorch: the example, as a person's image has it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Session
from paths import EXAMPLES

if importlib.util.find_spec("torch") is None:
    pytest.skip("this image has no PyTorch", allow_module_level=True)

LINES = [
    {"text": "the ball is in the goal", "topic": "sport"},
    {"text": "A goal in the last minute of the game", "topic": "sport"},
    {"text": "the judge reads the law", "topic": "law"},
    {"text": "the court hears the judge", "topic": "law"},
]
LOAD = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict([{"text": "the judge is in the court"}, {"text": "nothing that it knows"}])))
"""


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the image's Dockerfile sets."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "trainers" / "topic-torch"))
    monkeypatch.setenv("TARMAC_KINDS", "topic_by_meaning")


def ready(session: Session, lines: "list[dict[str, str]]" = LINES, **parameters: object) -> None:
    reference = session.put("".join(json.dumps(line) + "\n" for line in lines))
    session.request({"d": {"train": reference, "eval": reference}}, model="topic_by_meaning", parameters=parameters)


@pytest.mark.usefixtures("mlruns")
def test_it_is_trained_scored_saved_and_loaded_where_only_the_model_is(session: Session) -> None:
    ready(session, learn_rate=0.1)
    assert session.run("prep").code == 0
    trained = session.run("train")
    assert trained.result["parameters"] == {"epochs": 20, "learn_rate": 0.1, "size": 32}
    losses = [event["value"] for event in trained.of("metric") if event["name"] == "loss"]
    assert len(losses) == 20
    assert losses[-1] < losses[0] / 2
    assert trained.of("progress"), "a session that says nothing counts as stalled"
    assert session.run("eval").result["metrics"] == {"accuracy": 1.0, "macro_f1": 1.0}
    saved = session.run("save").result
    import mlflow

    needed = Path(mlflow.artifacts.download_artifacts(saved["model_uri"]), "requirements.txt").read_text()
    assert "torch==" in needed
    # Another process, without the trainer and the example on its path: both travel with the model.
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, saved["model_uri"]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "-packages" in path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    first, other = json.loads(loaded.stdout.splitlines()[-1])
    assert first == {"topic": "law"}
    assert other["topic"] in ("law", "sport")


def test_equal_requests_give_equal_models(session: Session) -> None:
    import torch

    states = []
    for _ in range(2):
        ready(session, epochs=3)
        for step in ("prep", "train"):
            assert session.run(step).code == 0
        from tarmac_trainer import models

        states.append(models.get("topic_by_meaning").load(session.folder / "model").value.network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_line_that_is_wrong_is_named(session: Session) -> None:
    ready(session, [{"text": " ", "topic": "law"}])
    assert session.run("prep").error["message"].endswith('line 1: "text" must be a text')
