"""A kind of model of one's own, with scikit-learn: the example, as a person's image has it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Session
from paths import EXAMPLES

from tarmac_trainer import models
from tarmac_trainer.runtime.errors import RequestError

KINDS = EXAMPLES / "trainers" / "topic-sklearn"
LINES = [
    {"text": "the ball is in the goal", "topic": "sport"},
    {"text": "a goal in the last minute of the game", "topic": "sport"},
    {"text": "the judge reads the law", "topic": "law"},
    {"text": "the court hears the judge", "topic": "law"},
    {"other": "of no use here"},
]
LOAD = """
import json, sys
import mlflow
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict([{"text": "the judge is in the court"}])))
"""


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the image's Dockerfile sets."""
    monkeypatch.syspath_prepend(str(KINDS))
    monkeypatch.setenv("TARMAC_KINDS", "topic_by_words")


def ready(session: Session, lines: "list[dict[str, str]]" = LINES, **more: object) -> None:
    reference = session.put("".join(json.dumps(line) + "\n" for line in lines))
    session.request({"d": {"train": reference, "eval": reference}}, model="topic_by_words", **more)


@pytest.mark.usefixtures("mlruns")
def test_it_is_trained_scored_saved_and_loaded_where_only_the_model_is(session: Session) -> None:
    ready(session, parameters={"strength": 100})
    assert session.run("prep").result["skipped_lines"] == 2, "one of train, the same one of eval"
    assert session.run("train").result["parameters"] == {"strength": 100}
    assert session.run("eval").result["metrics"] == {"accuracy": 1.0, "macro_f1": 1.0}
    saved = session.run("save").result
    import mlflow

    needed = Path(mlflow.artifacts.download_artifacts(saved["model_uri"]), "requirements.txt").read_text()
    assert "scikit-learn==" in needed
    # Another process, without the trainer and the example on its path: both travel with the model.
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, saved["model_uri"]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout.splitlines()[-1]) == [{"topic": "law"}]


def test_a_line_and_a_parameter_that_are_wrong_are_named(session: Session) -> None:
    ready(session, [{"text": "", "topic": "law"}])
    assert session.run("prep").error["message"].endswith('line 1: "text" must be a text')
    ready(session, parameters={"strength": 0})
    assert "parameters.strength" in session.run("prep").error["message"]


def test_a_script_may_not_leave_its_model_since_it_is_read_as_a_pickle(session: Session) -> None:
    ready(session, script=f"{'A' * 44}/{'A' * 44}.py")
    assert "read as a pickle" in session.run("prep").error["message"]


def test_a_pickle_that_is_cut_off_is_broken(session: Session) -> None:
    ready(session)
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    path = session.folder / "model" / "fitted.pickle"
    path.write_bytes(path.read_bytes()[:-20])
    assert "is broken" in session.run("eval").error["message"]


def test_it_is_known_beside_the_trainer_s_own_and_in_its_image_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"topic_by_words", "test_model"} <= set(models.names())
    monkeypatch.delenv("TARMAC_KINDS")
    with pytest.raises(RequestError, match="unknown model"):
        models.get("topic_by_words")
