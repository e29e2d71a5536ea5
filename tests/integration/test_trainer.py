"""The trainer image that Tarmac ships: it does what the catalogue promises, and the operator can run it."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tarmac import datasets
from tarmac.catalogue import OUR_IMAGE, catalogue
from tarmac.containers import engine
from tarmac.containers.mounts import TemplatedMount

# The tag that the test run has built; the stack's own without one.
TAG = os.environ.get("TARMAC_TAG") or "latest"
TRAINER = f"tarmac/trainer:{TAG}"

DECLARED = """
import json
from tarmac_trainer import models
declared = {}
for name in models.names():
    model = models.get(name)
    found = {}
    for key, parameter in model.parameters.items():
        if isinstance(parameter, models.Number):
            found[key] = ["int" if parameter.whole else "number", parameter.low, parameter.high, parameter.default]
        else:
            found[key] = ["choice", [None, *parameter.choices], parameter.default]
    declared[name] = [model.score_name, found]
print(json.dumps(declared))
"""


def test_the_catalogue_is_what_the_trainer_declares():
    answer = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python", TRAINER, "-c", DECLARED],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {
        name: [
            model.score,
            {
                key: [p.kind, list(p.choices), p.default] if p.kind == "choice" else [p.kind, p.low, p.high, p.default]
                for key, p in model.parameters.items()
            },
        ]
        for name, model in catalogue().models.items()
        if model.image == OUR_IMAGE
    }
    assert json.loads(answer.stdout) == ours


@pytest.fixture
def store(api: Any, stack: str, repository: Path) -> Iterator[tuple[str, str]]:
    """A volume with one stored data set, and its reference."""
    content = (repository / "examples" / "tiny.jsonl").read_bytes()
    reference, _, _ = datasets.put(io.BytesIO(content), "memory://it-trainer")
    name = f"{stack}_datasets"
    api.create_volume(name, labels={"tarmac.project": stack})
    helper = api.create_container(
        TRAINER,
        labels={"tarmac.project": stack},
        host_config=api.create_host_config(mounts=[{"Type": "volume", "Source": name, "Target": "/datasets"}]),
    )["Id"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(reference)
        entry.size, entry.mode = len(content), 0o644
        tar.addfile(entry, io.BytesIO(content))
    api.put_archive(helper, "/datasets", archive.getvalue())
    engine.remove_container(api, helper)
    yield name, reference
    engine.remove_volume(api, name)


def test_a_session_is_prepared_trained_scored_and_cleaned_up(store: tuple[str, str], new_session: Any):
    volume, reference = store
    session = new_session()
    session.request = {
        "model": "test_model",
        "datasets": {"tiny": {"train": reference, "eval": None}},
        "gpu": False,
        "seed": 0,
        "parameters": {"train_seconds": 1},
    }
    session.make_volume(TRAINER)

    def step(task_id: str, command: str, **kwargs: Any) -> Any:
        return session.step(task_id=task_id, image=TRAINER, command=[command], **kwargs)

    mounts = [TemplatedMount(source=volume, target="/datasets", read_only=True)]
    prepared = step("retrieve_resources", "prep", extra_mounts=mounts).run()
    assert [found["id"] for found in prepared["datasets"]] == [reference.split("/")[0]]
    assert prepared["train_lines"] > prepared["eval_lines"] > 0

    training = step("train_model_cpu", "train", environment={"TARMAC_DEVICE": "cpu"})
    trained = training.run()
    assert trained["curve"]
    assert trained["parameters"]["train_seconds"] == 1
    assert any(line.startswith("progress 100 %") for line in training.lines)
    assert any(line.startswith("metric   f1 = ") for line in training.lines)
    assert {key for key, _ in training.pushed} == {"progress"}

    scored = step("eval_model", "eval", environment={"TARMAC_DEVICE": "cpu"}).run()
    assert catalogue().models["test_model"].score in scored["metrics"]

    step("cleanup", "cleanup").run()
    look = session.step("ls -A /session | wc -l", task_id="look")
    look.run()
    assert look.lines[-1] == "0"


def test_a_request_that_the_trainer_refuses_fails_for_good_with_the_trainer_s_reason(new_session: Any):
    from tarmac.errors import ContainerError

    session = new_session()
    session.request = {"model": "test_model", "datasets": {"tiny": {"train": "x"}}, "parameters": {"epochs": 3}}
    session.make_volume(TRAINER)
    with pytest.raises(ContainerError, match="parameters.epochs") as failed:
        session.step(task_id="retrieve_resources", image=TRAINER, command=["prep"]).run()
    assert not failed.value.retryable


IMAGES = {"the trainer": TRAINER, "Airflow": f"tarmac/airflow:{TAG}", "MLflow": f"tarmac/mlflow:{TAG}"}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_an_image_runs_as_an_unprivileged_user(api: Any, image: str):
    assert api.inspect_image(image)["Config"]["User"] not in ("", "root", "0")
