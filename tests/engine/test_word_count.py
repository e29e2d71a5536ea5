"""The example trainer that is one shell script: the operator runs its steps, and what it saves can be registered."""

import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mlflow import Mlflow, running_mlflow
from tarmac.containers import engine
from tarmac.request import datasets

TAG = os.environ.get("TARMAC_TAG") or "latest"
WORD_COUNT = f"tarmac/word-count:{TAG}"
LOGIN = ("tarmac", "only-for-tests")


@pytest.fixture(scope="module")
def image(repository: Path) -> str:
    folder = repository / "examples" / "trainers" / "word-count"
    subprocess.run(["docker", "build", "--quiet", "--tag", WORD_COUNT, folder], check=True)
    return WORD_COUNT


@pytest.fixture(scope="module")
def mlflow_with_login(api: Any, stack_name: str) -> Iterator[Mlflow]:
    image, network = f"tarmac/mlflow:{TAG}", f"{stack_name}-word-count"
    with running_mlflow(api, stack_name, image, login=LOGIN, network=network) as server:
        yield server


class Run:
    """A session of the example trainer."""

    def __init__(self, session: Any, store: Any, image: str, request: dict[str, Any]) -> None:
        self._session, self._store, self._image = session, store, image
        session.request = {"model": "word_count", "gpu": False, "seed": 0, **request}
        session.make_volume(image)

    def step(self, task_id: str, command: str, **kwargs: Any) -> Any:
        # One that ended well is kept, and would be followed in place of a new one.
        engine.fence(self._session.api, self._session.labels)
        return self._session.step(task_id=task_id, image=self._image, command=[command], **kwargs)

    def prep(self) -> dict[str, Any]:
        environment = {"TARMAC_STORE": "file:///datasets"}
        step = self.step("retrieve_resources", "prep", extra_mounts=[self._store.mount], environment=environment)
        found: dict[str, Any] = step.run()
        return found

    def save(self, network: str) -> Any:
        kwargs = {"network_mode": network, "include_credentials": ["mlflow"]}
        return self.step("save_model", "save", **kwargs).run()


@pytest.fixture
def new_run(store: Any, new_session: Any, image: str) -> Callable[..., Run]:
    return lambda **request: Run(new_session(), store, image, request)


@pytest.fixture
def connected(mlflow_with_login: Mlflow, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", LOGIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", LOGIN[1])
    return mlflow_with_login


def lines_of(values: list[Any]) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def test_a_session_goes_through_all_steps_and_its_model_is_registered(
    new_run: Any, store: Any, connected: Mlflow, repository: Path
) -> None:
    content = (repository / "examples" / "tiny.jsonl").read_bytes()
    train = store.put(content)
    dev = store.put(lines_of([{"sentence": "the , xylophone\tthe"}, {"user": "u", "item": "for another model"}]))
    run = new_run(datasets={"a": {"train": train, "eval": None}, "b b": {"train": train, "eval": dev}})
    prepared = run.prep()
    assert [(d["name"], d["split"], d["id"], d["lines"]) for d in prepared["datasets"]] == [
        ("a", "train", train.split("/")[0], 22),
        ("b b", "train", train.split("/")[0], 22),
        ("b b", "eval", dev.split("/")[0], 2),
    ]
    assert prepared["datasets"][0]["bytes"] == len(content)
    assert (prepared["train_lines"], prepared["eval_lines"], prepared["skipped_lines"]) == (20 + 22, 2 + 1, 1)

    training = run.step("train_model_cpu", "train", environment={"TARMAC_DEVICE": "cpu"})
    trained = training.run()
    assert [step for step, _ in trained["curve"]] == [1, 2, 3, 4]
    assert trained["best_score"] == max(score for _, score in trained["curve"]) > 0.5
    assert any(line.startswith("progress 100 %") for line in training.lines)
    assert any(line.startswith("metric   coverage = ") for line in training.lines)

    saved = run.save(connected.network)
    assert run.save(connected.network) == saved  # again: the same run
    scored = run.step("eval_model", "eval", environment={"TARMAC_DEVICE": "cpu"}).run()
    assert scored["metrics"]["coverage"] == trained["best_score"]

    from tarmac.registry.client import Registry

    version = Registry(connected.url).register(
        name="word_count",
        kind="word_count",
        run_id=saved["mlflow_run_id"],
        source=saved["model_uri"],
        metrics=scored["metrics"],
        description="",
        tags={},
    )
    assert (version.name, int(version.version)) == ("word_count", 1)
    record = connected.call("GET", "/runs/get", run_id=saved["mlflow_run_id"])["run"]
    assert record["info"]["status"] == "FINISHED"
    assert {m["key"]: m["value"] for m in record["data"]["metrics"]} == scored["metrics"]
    words = connected.artifact(f"{saved['model_uri']}/vocabulary.tsv")
    assert saved["bytes"] == len(words.encode())
    counts = dict(line.split("\t") for line in words.splitlines())
    assert int(counts["the"]) > 1
    assert "xylophone" not in counts

    run.step("cleanup", "cleanup").run()
    assert run.step("look", "ls", entrypoint=["sh", "-c", "ls -A /session"]).run() is None


def test_a_session_trained_again_is_another_run_of_mlflow(new_run: Any, store: Any, connected: Mlflow) -> None:
    run = new_run(datasets={"a": {"train": store.put(lines_of([{"sentence": "a b"}] * 20)), "eval": None}})
    run.prep()
    found = set()
    for _ in range(2):
        run.step("train_model_cpu", "train").run()
        found.add(run.save(connected.network)["mlflow_run_id"])
    assert len(found) == 2


def test_an_mlflow_that_refuses_is_told_and_the_step_may_be_retried(
    new_run: Any, store: Any, connected: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tarmac.base.errors import ContainerError

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-for-tests")
    run = new_run(datasets={"a": {"train": store.put(lines_of([{"sentence": "a b"}] * 20)), "eval": None}})
    run.prep()
    run.step("train_model_cpu", "train").run()
    with pytest.raises(ContainerError, match="MLflow: POST mlflow/experiments/search") as failed:
        run.save(connected.network)
    assert failed.value.retryable


def test_health_is_what_the_operator_asks_for(new_run: Any, store: Any) -> None:
    run = new_run(datasets={"a": {"train": store.put(lines_of([{"sentence": "a b"}] * 20)), "eval": None}})
    script = """
        export TARMAC_STALL_SECONDS=30.5
        tarmac-trainer health && exit 9
        echo "$$ $(date +%s)" > /session/health; tarmac-trainer health || exit 8
        echo "$$ $(($(date +%s) - 60))" > /session/health; tarmac-trainer health && exit 7
        echo "99999 $(date +%s)" > /session/health; tarmac-trainer health && exit 6
        exit 0
    """
    look = run.step("look", "health", entrypoint=["bash", "-c", script])
    look.run()
    silent, gone = [line for line in look.lines if "progress" in line or "process" in line][-2:]
    # A minute, and what the script took since it read the clock.
    assert re.fullmatch(r"no progress for 6\d s", silent)
    assert gone == "the training's process is gone"


ID = "1" * 44
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a data set that is not there": (
        {"datasets": {"a": {"train": f"{ID}/{ID}.jsonl", "eval": None}}},
        "data set a train: there is no ",
    ),
    "a URL": (
        {"datasets": {"a": {"train": "s3://bucket/x.jsonl", "eval": None}}},
        "reads ids and file:// URLs, not s3",
    ),
    "a parameter": ({"parameters": {"min_count": 1.5}, "datasets": {}}, "parameters.min_count: must be a whole number"),
}


@pytest.mark.parametrize(("request_", "reason"), BAD.values(), ids=BAD)
def test_a_bad_request_fails_for_good(new_run: Any, request_: dict[str, Any], reason: str) -> None:
    from tarmac.base.errors import ContainerError

    with pytest.raises(ContainerError, match=reason) as failed:
        new_run(**request_).prep()
    assert not failed.value.retryable


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n", "none of its lines has the key"),
        (b'{"item": "a"}\n', "none of its lines has the key"),
        (b'{"sentence": "a"}\n{"sen\n', "jq: parse error"),
        (b'{"sentence": 5}\n', "cannot be matched"),
    ],
)
def test_a_data_set_that_cannot_be_read_fails_for_good(new_run: Any, store: Any, content: bytes, reason: str) -> None:
    from tarmac.base.errors import ContainerError

    with pytest.raises(ContainerError, match=reason) as failed:
        new_run(datasets={"a": {"train": store.put(content), "eval": None}}).prep()
    assert not failed.value.retryable


def test_a_data_set_that_is_not_what_its_id_says_fails_for_good(new_run: Any, store: Any) -> None:
    from tarmac.base.errors import ContainerError

    reference = store.put(b'{"sentence": "altered"}\n', datasets.put(io.BytesIO(b"x"), "memory://it-store")[0])
    with pytest.raises(ContainerError, match="data set a train: its content is that of .*, not of ") as failed:
        new_run(datasets={"a": {"train": reference, "eval": None}}).prep()
    assert not failed.value.retryable


def test_an_id_with_leading_zero_bytes_is_computed_as_everywhere(new_run: Any, store: Any) -> None:
    contents = (lines_of([{"sentence": f"word {number}"}] * 12) for number in range(10_000))
    content = next(c for c in contents if hashlib.sha256(c).digest()[0] == 0)
    reference = store.put(content)
    assert reference.startswith("1")
    assert new_run(datasets={"a": {"train": reference, "eval": None}}).prep()["train_lines"] == 11
