"""Every model of the catalogue through the pipeline, from one file with all keys; and training code of users."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.stack import DAG, REPO, Stack
from support.waiting import wait_for
from tarmac.request.catalogue import OURS, combine

# All kinds are trained at once.
pytestmark = pytest.mark.timeout(1800)

ELSEWHERE = {"test_model", "own_code", "translation"}
"""Tried elsewhere: by every other test, by tests/stack/test_client.py, and in the image that has PyTorch."""

MODELS = [name for name in combine([("ours", OURS.read_bytes())]).models if name not in ELSEWHERE]
QUICK = {"max_steps": 10, "eval_frequency": 5}

EXAMPLES = """
import json, mlflow, sys
for uri in sys.argv[1:]:
    model = mlflow.pyfunc.load_model(uri)
    from tarmac_trainer import models  # it came with the model
    print(json.dumps(model.predict([dict(models.get(uri.split("/")[1]).example)])))
"""

PREDICT = Path("/opt/predict")
"""In the test image: what README's `pip install` gives, on another Python than the trainer's."""

SCRIPT = """
import json, os, spacy
print(json.dumps({"event": "progress", "done": 1, "total": 2}), flush=True)
nlp = spacy.blank("en")
nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": "Obama"}])
print("a script of a user was here")
nlp.to_disk(os.environ["TARMAC_MODEL"])
"""


@pytest.fixture(scope="module")
def multitask(stack: Stack) -> dict[str, Any]:
    train, dev = (stack.store(REPO / "examples" / f"multitask.{part}.jsonl") for part in ("train", "dev"))
    return {"multitask": {"train": train, "eval": dev}}


@pytest.fixture(scope="module")
def versions(stack: Stack, multitask: dict[str, Any]) -> dict[str, str]:
    """Each kind of model, trained from one file: the address of its version by its name."""
    known = combine([("ours", OURS.read_bytes())]).models
    runs = {}
    for name in MODELS:
        parameters = {key: value for key, value in QUICK.items() if key in known[name].parameters}
        runs[name] = stack.start({"model": name, "datasets": multitask, "parameters": parameters})
    found = {}
    for name, run_id in runs.items():
        assert stack.finish(run_id, seconds=600) == "success", name
        registered = stack.xcom(run_id, "update_model_metadata_registry")
        assert registered["score_name"] == known[name].score
        assert all(0 <= value <= 1 for value in registered["metrics"].values()), registered
        found[name] = f"models:/{registered['name']}/{registered['version']}"
        prepared = stack.xcom(run_id, "retrieve_resources")
        assert prepared["skipped_lines"] > 0, "the lines of the other models"
        assert prepared["train_lines"] > 0
    stack.assert_nothing_left(*runs.values())
    return found


def outside(stack: Stack, *command: str, script: str = "") -> str:
    """Run README's lines to predict, or a command, as a person does who has no more of the stack than its address."""
    environment = {"PATH": f"{PREDICT}/bin:/usr/bin:/bin", "HOME": os.environ["HOME"]}
    done = subprocess.run(
        [*(command or ("bash", "-e", "-c", script))], cwd=REPO, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    not PREDICT.exists(), reason="README's line to predict is NOT tried: there is no second Python here"
)
def test_each_model_predicts_on_another_python_outside_of_the_stack_as_readme_says(
    stack: Stack, versions: dict[str, str]
) -> None:
    ours, theirs = (
        subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], text=True, capture_output=True).stdout
        for python in (sys.executable, f"{PREDICT}/bin/python")
    )
    assert ours != theirs, "the models were saved on the Python of these tests, Debian's"
    (block,) = (part for part in (REPO / "README.md").read_text().split("```bash\n") if "load_model" in part)
    install, *lines = block.partition("```")[0].splitlines()
    groups = tomllib.loads((REPO / "pyproject.toml").read_text())["dependency-groups"]
    assert install.partition("#")[0].split() == ["pip", "install", *groups["predict"]], "what the image was made with"
    script = "\n".join(lines)
    for readme, here in (
        ("env/registry.env", str(stack.env_dir / "registry.env")),
        ("localhost:5000", f"localhost:{stack.mlflow_port}"),
        ("models:/named_entity_recognition/1", versions["named_entity_recognition"]),
    ):
        assert script.count(readme) == 1
        script = script.replace(readme, here)
    assert "named_entity" in outside(stack, script=script)
    settings = script.rpartition("python -c")[0]
    out = outside(stack, script=f"{settings}\npython -c {shlex.quote(EXAMPLES)} {shlex.join(versions.values())}")
    answers = [json.loads(line) for line in out.splitlines() if line.startswith("[")]
    assert len(answers) == len(versions)
    assert all(len(answer) == 1 and answer[0] for answer in answers)


@pytest.fixture
def word_count() -> Iterator[None]:
    """Build the example trainer and put it into the catalogue of the stack that runs already."""
    folder = REPO / "examples" / "trainers" / "word-count"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", "tarmac/word-count", folder], check=True, capture_output=True
    )
    entry = REPO / "env" / "trainers" / "word_count.toml"
    mine = not entry.exists()
    if mine:
        shutil.copy(folder / "word_count.toml", entry)
    yield
    if mine:
        entry.unlink()


def test_a_team_s_trainer_counts_without_a_restart(stack: Stack, tiny: str, word_count: None) -> None:
    # A tenth of 22 lines is held out: too few for the rule of promotion.
    request = {"model": "word_count", "datasets": {"tiny": {"train": tiny, "eval": None}}, "promote": "auto"}

    def accepted() -> str | None:
        # Airflow's own check of the form's choices follows when it has read the DAG again.
        answer = stack.post(request)
        return answer.json()["dag_run_id"] if answer.status_code == 200 else None

    run_id = wait_for("the new trainer to be known", accepted)
    assert "word_count" in stack.make("trainers").stdout
    assert stack.finish(run_id) == "success"
    registered = stack.xcom(run_id, "update_model_metadata_registry")
    assert (registered["name"], registered["score_name"]) == ("word_count", "coverage")
    assert 0 < registered["score"] <= 1
    count = registered["eval_lines"]
    assert 0 < count < 22
    assert f"is from {count} evaluation line" in registered["promotion"]
    followed = stack.make("follow", f"RUN={run_id}").stdout
    assert f"warning: the score is from {count} evaluation line" in followed
    assert f"on {count} evaluation line" in stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"]
    stack.assert_nothing_left(run_id)


def test_a_user_s_script_trains_and_its_model_is_scored_and_registered(stack: Stack, multitask: dict[str, Any]) -> None:
    path = REPO / ".cache" / f"{stack.project}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SCRIPT)
    try:
        stored = stack.make("script", f"FILE={path}")
    finally:
        path.unlink()
    assert stored.returncode == 0, stored.stderr
    request = {"model": "named_entity_recognition", "datasets": multitask, "script": stored.stdout.strip()}
    run_id = stack.start(request)
    assert stack.finish(run_id) == "success"
    assert "a script of a user was here" in stack.log(run_id, "train_model_cpu")
    assert "f1" in stack.xcom(run_id, "update_model_metadata_registry")["metrics"]
    stack.assert_nothing_left(run_id)


def test_a_script_that_is_not_in_the_store_is_refused_before_anything_starts(
    stack: Stack, multitask: dict[str, Any]
) -> None:
    missing = "A" * 43
    request = {
        "model": "named_entity_recognition",
        "datasets": multitask,
        "script": f"{missing}/{missing}.py",
    }
    assert "script: there is no such script: store it with `make script FILE=...`" in stack.refused(request)
