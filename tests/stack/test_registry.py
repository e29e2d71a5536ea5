"""Registered models on the whole stack: promoted by the rule, taken back, cached, repeated; an unavailable MLflow."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from support.stack import DAG, REPO, Stack
from support.waiting import wait_for
from tarmac.registry.client import WHERE_MODELS_ARE
from tarmac.registry.promotion import LEAST_LINES


def people(*names: str, do: str = "sleeps") -> str:
    """As many lines as the rule of promotion needs, about each of them equally often."""
    lines = (
        {"sentence": f"{name} {do} {night}", "named_entity": ["B-person", "O", "O"]}
        for night in range(LEAST_LINES // len(names))
        for name in names
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def data(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """References of data sets to learn one and two people from, and to score on three and on those two."""
    folder = tmp_path_factory.mktemp("people")
    contents = {
        "one": people("Ada"), "two": people("Ada", "Bob"),
        "three": people("Ada", "Bob", "Cy", do="walks"), "both": people("Ada", "Bob", do="walks"),
    }  # fmt: skip
    found = {}
    for key, content in contents.items():
        (folder / key).write_text(content)
        found[key] = stack.store(folder / key)
    return found


def request(data: dict[str, str], known: str, name: str, **more: Any) -> dict[str, Any]:
    """A session whose model knows some of the three people."""
    return {
        "model": "test_model", "datasets": {"people": {"train": data[known], "eval": data["three"]}}, "name": name,
        "no_cache": True, **more,
    }  # fmt: skip


class Mlflow:
    """The stack's own registry, as a person with its login sees it."""

    def __init__(self, stack: Stack) -> None:
        lines = (stack.env_dir / "registry.env").read_text().splitlines()
        keys = dict(line.split("=", 1) for line in lines if "=" in line)
        login = (keys["MLFLOW_TRACKING_USERNAME"], keys["MLFLOW_TRACKING_PASSWORD"])
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{stack.mlflow_port}/api/2.0/mlflow", auth=login, timeout=120
        )

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        answer = self._http.get(path, params=params)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def post(self, path: str, **payload: Any) -> dict[str, Any]:
        answer = self._http.post(path, json=payload)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def production(self, name: str) -> str | None:
        found = self.get("/registered-models/get", name=name)["registered_model"]
        return next((item["version"] for item in found.get("aliases", []) if item["alias"] == "production"), None)

    def versions(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/model-versions/search", filter=f"name = '{name}'").get(
            "model_versions", []
        )
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        run = self.get("/runs/get", run_id=run_id)["run"]
        pairs = {key: {p["key"]: p["value"] for p in run["data"].get(key, [])} for key in ("params", "tags", "metrics")}
        return {**pairs, "experiment": run["info"]["experiment_id"], "status": run["info"]["status"]}


@pytest.fixture(scope="module")
def mlflow(stack: Stack) -> Mlflow:
    return Mlflow(stack)


@dataclass
class Known:
    """A session: its request, its run, what it registered, and its run in MLflow."""

    conf: dict[str, Any]
    run_id: str
    registered: dict[str, Any]
    mlflow_run: str


def trained(stack: Stack, conf: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Run a session to its end: its id and what it registered."""
    run_id = stack.start(conf)
    assert stack.finish(run_id) == "success"
    return run_id, stack.xcom(run_id, "update_model_metadata_registry")


def compose(stack: Stack, *words: str) -> None:
    subprocess.run(["env/host/stack.sh", *words], cwd=REPO, env=stack.environment, check=True, capture_output=True)


@pytest.fixture(scope="module")
def known(stack: Stack, mlflow: Mlflow, data: dict[str, str]) -> Known:
    """One session that several tests look at, repeat and train on from; its model is in production as known/1."""
    conf = request(data, "two", "known", no_cache=False, promote="auto", seed=5, parameters={"train_seconds": 1})
    run_id, registered = trained(stack, conf)
    assert mlflow.production("known") == registered["version"] == "1"
    return Known(conf, run_id, registered, stack.xcom(run_id, "save_model")["mlflow_run_id"])


@pytest.mark.xdist_group("rule")
def test_a_better_model_goes_into_production_by_the_rule_and_back_by_hand(
    stack: Stack, mlflow: Mlflow, data: dict[str, str]
) -> None:
    name = "rule"
    one, first = trained(stack, request(data, "one", name, promote="auto"))
    assert first["promotion"].startswith("promoted: nothing was in production")
    assert mlflow.production(name) == first["version"] == "1"
    # Scored by the second session on its own evaluation set, which has other lines than the first one's.
    better = request(data, "two", name, promote="auto")
    better["datasets"]["people"]["eval"] = data["both"]
    two, second = trained(stack, better)
    assert "that of version 1 is 0.6667: better by 0.3333" in second["promotion"]
    assert mlflow.production(name) == "2"
    assert stack.xcom(two, "eval_model")["production"]["version"] == "1"
    three, third = trained(stack, request(data, "one", name, promote="auto"))
    assert third["promotion"].startswith("not promoted: f1 is 0.5000, that of version 2 is 0.8000")
    assert mlflow.production(name) == "2"

    said = stack.make("production", f"MODEL={name}")
    assert said.returncode == 0, said.stderr
    assert "version 2 is in production, version 1 was before" in said.stdout
    assert f"by     {two} (the rule)" in said.stdout
    since = said.stdout.split("since  ")[1].split()[0]
    back = stack.make("rollback", f"MODEL={name}", "WHY=it is odd")
    assert back.returncode == 0, back.stderr
    assert mlflow.production(name) == "1"
    assert f"Version 2 of {name} was in production" in stack.make("production", f"MODEL={name}", f"AT={since}").stdout
    assert "it is odd" in stack.make("production", f"MODEL={name}").stdout
    assert stack.make("promote", f"MODEL={name}", "VERSION=3", "WHY=by hand").returncode == 0
    assert mlflow.production(name) == "3"

    listed = stack.make("models", f"MODEL={name}").stdout.splitlines()
    assert listed[0].split() == ["NAME", "VERSION", "ALIAS", "METRIC", "DATA", "AGE"]
    assert [line.split()[1:6] for line in listed[1:]] == [
        ["3", "production", "f1", "0.5000", "people"], ["2", "-", "f1", "1.0000", "people"],
        ["1", "-", "f1", "0.5000", "people"],
    ]  # fmt: skip
    side = stack.make("compare", f"A={name}/2", f"B={name}/3").stdout
    rows = {line[3:].split("  ")[0].strip() + ":" + " ".join(line.split()[-2:]) for line in side.splitlines()}
    assert "metric:1.0000 0.5000" in rows
    assert data["one"].split("/")[0] in side, "which data"
    assert "device" in side
    assert "duration" in side
    stack.assert_nothing_left(one, two, three)


KNOWN = pytest.mark.xdist_group("known")

WRONG = [
    (("promote", "MODEL=nobody", "VERSION=1"), "There is no model 'nobody'; there are: "),
    (("promote", "MODEL=rule", "VERSION=99"), "There is no version 99 of 'rule'; there are: 3, 2, 1."),
    (("promote", "MODEL=rule", "VERSION=x"), "VERSION: 'x' is not a version"),
    (("promote", "MODEL=rule", "VERSION=3"), "Version 3 of 'rule' is in production already."),
    (("promote",), "make promote MODEL=name VERSION=n"),
    (("rollback", "MODEL=nobody"), "There is no model 'nobody'; there are: "),
    (("compare", "A=rule/1", "B=rule"), "'rule' names no version: write name/number"),
    (("compare", "A=rule/1", "B=rule/99"), "There is no version 99 of 'rule'"),
    (("models", "MODEL=nobody"), "There is no model 'nobody'"),
    (("production", "MODEL=nobody"), "There is no model 'nobody'"),
    (("production", "MODEL=rule", "AT=yesterday"), "AT: 'yesterday' is not a time: write for example"),
    (("reproduce", "RUN=manual__never"), "No model was saved by a run 'manual__never'"),
]


@pytest.mark.xdist_group("rule")
@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_name_that_is_wrong_is_told_with_what_there_is(stack: Stack, words: tuple[str, ...], said: str) -> None:
    done = stack.make(*words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@KNOWN
def test_a_run_in_mlflow_holds_what_it_takes_to_know_and_repeat_it_and_airflow_links_to_it(
    stack: Stack, mlflow: Mlflow, data: dict[str, str], known: Known
) -> None:
    run = mlflow.run(known.mlflow_run)
    params, tags, metrics = run["params"], run["tags"], run["metrics"]
    assert (params["train_seconds"], params["seed"], params["device"]) == ("1.0", "5", "cpu")
    assert params["data.people.train.id"] == data["two"].split("/")[0]
    assert params["data.people.eval.bytes"] == str(len(people("Ada", "Bob", "Cy", do="walks")))
    assert "@sha256:" in tags["tarmac.image"]
    assert tags["tarmac.version"] == tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert tags["tarmac.commit"]
    assert tags["tarmac.airflow_url"].endswith(known.run_id)
    assert json.loads(tags["tarmac.metrics"]) == known.registered["metrics"]
    assert float(tags["tarmac.seconds"]) >= 1
    assert int(tags["tarmac.memory_peak_bytes"]) > 10 * 2**20
    # It was begun with the training, and `save` went on with it.
    assert tags["mlflow.runName"] == "known (test_model), data people, by airflow"
    assert metrics["system/system_memory_usage_megabytes"] > 0
    assert len(tags["tarmac.container"]) == 64
    (version,) = (found for found in mlflow.versions("known") if found["version"] == "1")
    assert "f1 0.8000" in version["description"]
    card = tags["mlflow.note.content"]
    for part in ("Limits:", 'load_model("models:/known/', "data set", "Best f1"):
        assert part in card, part
    path = f"{DAG}/dagRuns/{known.run_id}/taskInstances/update_model_metadata_registry/links"
    pages = f"http://localhost:{stack.mlflow_port}/#"
    assert stack.http.get(path).json()["extra_links"] == {
        "Model version in MLflow": f"{pages}/models/known/versions/1{WHERE_MODELS_ARE}",
        "Training in MLflow": f"{pages}/experiments/{run['experiment']}/runs/{known.mlflow_run}{WHERE_MODELS_ARE}",
    }


RECEIVER = """
import http.server
class Keep(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        with open('/tmp/received', 'ab') as kept: kept.write(body + b'\\n')
        self.send_response(200); self.end_headers()
http.server.ThreadingHTTPServer(('', 9911), Keep).serve_forever()
"""


@KNOWN
def test_a_target_of_messages_that_answers_late_is_told_of_a_session_s_model_and_score(
    stack: Stack, known: Known
) -> None:
    waits = "SELECT count(*) FROM delivery JOIN notice ON id = notice_id WHERE fact LIKE 'session %s %%'"

    def inside(service: str, *words: str) -> str:
        command = ["env/host/stack.sh", "exec", "-T", service, *words]
        done = subprocess.run(command, cwd=REPO, env=stack.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def sql(statement: str) -> str:
        return inside("postgres", "psql", "-U", "postgres", "-d", "tarmac", "-Atc", statement)

    wait_for("the message in the outbox", lambda: sql(waits % known.run_id) == "1")
    said = stack.make("notify-test")
    assert said.returncode != 0
    assert "receiver: did not take the message: " in said.stdout
    compose(stack, "exec", "-d", "airflow-cli", "python", "-c", RECEIVER)
    wait_for("the receiver", lambda: stack.make("notify-test", "TARGET=receiver").returncode == 0)
    # It would be tried again within minutes, after those of other tests.
    other = f"notice_id NOT IN (SELECT id FROM notice WHERE fact LIKE 'session {known.run_id} %')"
    sql(f"UPDATE delivery SET given_up_at = now() WHERE sent_at IS NULL AND {other}")

    def received() -> list[dict[str, Any]]:
        # An attempt that failed in the same moment may have put the next one off.
        sql("UPDATE delivery SET next_at = '-infinity' WHERE sent_at IS NULL")
        found = [json.loads(line) for line in inside("airflow-cli", "cat", "/tmp/received").splitlines()]
        return [one for one in found if f"/sessions/{quote(known.run_id, safe='')}" in one["message"]]

    (message,) = wait_for("the message", received, every=1)
    assert message["title"] == "Finished: known (test_model), data people, by airflow"
    assert message["message"].startswith("known/1, f1 0.8")


# Before the repetition, which would be the one that is found.
@KNOWN
def test_the_same_training_is_not_done_twice_and_says_so(stack: Stack, mlflow: Mlflow, known: Known) -> None:
    assert "cached_from" not in stack.xcom(known.run_id, "train_model_cpu")
    run_id, again = trained(stack, known.conf)
    assert stack.xcom(run_id, "train_model_cpu")["cached_from"] == known.run_id
    assert f"the same training was done before, by {known.run_id}" in stack.log(run_id, "train_model_cpu")
    assert int(again["version"]) > 1, "it still registers"
    assert again["metrics"] == known.registered["metrics"]
    tags = mlflow.run(stack.xcom(run_id, "save_model")["mlflow_run_id"])["tags"]
    assert tags["tarmac.cached_from"] == known.run_id
    assert f"nothing was trained: the same training was done before, by {known.run_id}" in (
        stack.make("follow", f"RUN={run_id}").stdout
    )
    # What makes two trainings the same: tests/pure/test_origins.py. That no_cache trains anew: every other session.
    stack.assert_nothing_left(run_id)


@KNOWN
def test_a_run_is_repeated_from_its_record_and_the_metrics_match(stack: Stack, mlflow: Mlflow, known: Known) -> None:
    before = mlflow.versions("known")
    done = stack.make("reproduce", f"RUN={known.run_id}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The metrics match." in done.stdout
    assert "not the same" not in done.stdout
    assert "cached" not in done.stdout, "it has trained"
    assert mlflow.production("known") == "1"
    assert len(mlflow.versions("known")) == len(before), "the repetition has a name of its own"
    stack.assert_nothing_left(known.run_id)


@KNOWN
def test_a_session_trains_on_from_a_run_and_is_not_promoted_unasked(
    stack: Stack, mlflow: Mlflow, data: dict[str, str], known: Known
) -> None:
    # From a registered version: the test after this one. How each form is resolved, and what is refused:
    # tests/pure/test_origins.py.
    base = f"run:{known.run_id}"
    later, registered = trained(stack, request(data, "one", "known", base_model=base))
    assert "to train on from" in stack.log(later, "retrieve_resources")
    assert mlflow.run(stack.xcom(later, "save_model")["mlflow_run_id"])["tags"]["tarmac.base_model"] == base
    assert registered["promotion"] == "not asked for"
    assert mlflow.production("known") == "1"
    stack.assert_nothing_left(later)
    said = stack.refused(request(data, "one", "known", base_model="known/99") | {"model": "named_entity_recognition"})
    assert "base_model: There is no version 99 of 'known'" in said
    assert "name: 'known' holds models of another kind, test_model" in said


@KNOWN
def test_a_model_that_is_scored_on_what_it_was_trained_on_is_told_and_not_promoted_by_the_rule(
    stack: Stack, mlflow: Mlflow, data: dict[str, str], known: Known
) -> None:
    own = request(data, "two", "known", promote="auto")
    own["datasets"]["people"]["eval"] = data["two"]
    run_id, registered = trained(stack, own)
    assert registered["metrics"]["f1"] == 1
    version = registered["version"]
    assert f"not promoted: version {version} was trained on 100 % of the evaluation lines" in registered["promotion"]
    assert mlflow.production("known") == "1"
    assert "was trained on 30 of these 30 lines: expect less on others" in stack.make("follow", f"RUN={run_id}").stdout
    # Here it was by way of its base model, whose file it does not name. All other cases: tests/pure/test_promotion.py.
    based = request(data, "one", "known", promote="auto", base_model=f"known/{version}")
    based["datasets"]["people"]["eval"] = data["two"]
    third, registered = trained(stack, based)
    assert f"not promoted: version {registered['version']} was trained on 100 % of" in registered["promotion"]
    tags = mlflow.run(stack.xcom(third, "save_model")["mlflow_run_id"])["tags"]
    assert tags["tarmac.base_model"] == f"known/{version}"
    stack.assert_nothing_left(run_id, third)


def save_state(stack: Stack, run_id: str, *states: str) -> Callable[[], bool]:
    return lambda: stack.states(run_id)["save_model"] in states


@pytest.mark.disturbs
def test_a_registry_that_is_unavailable_loses_no_model_and_shows_no_half_saved_one(
    stack: Stack, mlflow: Mlflow, data: dict[str, str]
) -> None:
    conf = request(data, "two", "kept", parameters={"train_seconds": 3600})
    run_id = stack.start(conf)
    own = f"tarmac.run={run_id}"
    wait_for("the training", lambda: stack.session_containers("tarmac.task=train_model_cpu", own))
    compose(stack, "stop", "mlflow")
    try:
        stack.end_trainings(run_id)
        wait_for("saving to fail for now", save_state(stack, run_id, "up_for_retry"), 480)
        assert len(stack.session_volumes(own)) == 1, "the model stays in its volume"
        # The next attempt may have begun, which has not said it yet.
        wait_for("the log to say why", lambda: "does not answer" in stack.log(run_id, "save_model"))
        assert stack.states(run_id)["cleanup"] is None
    finally:
        compose(stack, "start", "mlflow")
    assert stack.finish(run_id, 400) == "success"
    assert [version["version"] for version in mlflow.versions("kept")] == ["1"]
    assert stack.tasks(run_id)["train_model_cpu"]["try_number"] == 1, "trained once"
    stack.assert_nothing_left(run_id)


@pytest.mark.disturbs  # any model that is half uploaded counts here
def test_a_trainer_that_is_killed_while_it_saves_leaves_no_broken_version(
    stack: Stack, mlflow: Mlflow, data: dict[str, str], tmp_path: Path
) -> None:
    run_id = stack.start(request(data, "two", "killed"))
    begun: list[dict[str, Any]] = []

    def uploading() -> bool:
        """The model's record is in MLflow, its files are not all there yet."""
        found = mlflow.post("/experiments/search", max_results=100)["experiments"]
        ids = [item["experiment_id"] for item in found]
        models = mlflow.post("/logged-models/search", experiment_ids=ids, max_results=50).get("models", [])
        begun[:] = [item["info"] for item in models if item["info"]["status"] == "LOGGED_MODEL_PENDING"]
        return bool(begun)

    wait_for("the upload to begin", uploading, every=0.01)
    for container in stack.session_containers("tarmac.task=save_model", f"tarmac.run={run_id}"):
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
    assert stack.finish(run_id, 400) == "success"
    assert stack.tasks(run_id)["save_model"]["try_number"] >= 2
    (version,) = mlflow.versions("killed")
    assert version["status"] == "READY"
    assert begun[0]["model_id"] not in version["source"], "not the one that was half uploaded"
    assert not uploading(), "and that one is gone"
    code = "import mlflow; print(mlflow.pyfunc.load_model('models:/killed/1').predict([{'sentence': 'Ada sleeps'}]))"
    out = subprocess.run(
        ["docker", "run", "--rm", "--network", f"{stack.project}_registry", "--env-file",
         stack.env_dir / "registry.env", "--entrypoint", "python", f"tarmac/trainer:{stack.environment['TARMAC_TAG']}",
         "-c", code],
        text=True, capture_output=True,
    )  # fmt: skip
    assert "B-person" in out.stdout, out.stderr
    stack.assert_nothing_left(run_id)
