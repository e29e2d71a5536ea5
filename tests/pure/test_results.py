"""What the tasks make of what they hand each other: typed where it arrives, with an error that names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tarmac.base.errors import MissingResultError, NothingToRegisterError, RequestError, ResultError
from tarmac.registry.client import Run, Version
from tarmac.request.schema import parse_request
from tarmac.tasks import pipeline
from tarmac.tasks.pipeline import register_model
from tarmac.tasks.results import Plan, Prepared, PreparedData, Saved, Scored, Trained, checked_request
from tarmac.web import sessions

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
GOOD = {"model": "test_model", "datasets": {"tiny": {"train": f"{ID}/{ID}.jsonl", "eval": None}}}
DATA = {"name": "tiny", "split": "train", "id": ID, "bytes": 7, "lines": 2}
PREP: dict[str, Any] = {"datasets": [DATA], "parameters": {"steps": 3}, "train_lines": 2}
SESSION = {"score": "f1", "margin": 0.005}
SAVED = {"mlflow_run_id": "r1", "model_uri": "models:/m-1", "bytes": 3}
SCORED: dict[str, Any] = {
    "metrics": {"f1": 0.5, "recall": 1},
    "eval_lines": 200,
    "eval_lines_seen": 50,
    "production": {"version": "12", "metrics": {"f1": 0.25}, "eval_lines_seen": 20},
}


def test_results_of_the_contract_are_read():
    assert Prepared.of(PREP) == Prepared((PreparedData("tiny", "train", ID, 7, 2),), {"steps": 3})
    assert [one.bytes for one in Prepared.of({"datasets": [DATA, {**DATA, "bytes": None}]}).datasets] == [7, 0]
    assert Prepared.of({"datasets": []}).parameters is None
    told = {"datasets": [], "gpu_need": {"bytes": 2**30, "why": "computed"}}
    assert Prepared.of(told).gpu_need == (2**30, "computed")
    # It only improves an estimate.
    for wrong in (7, {"bytes": 5, "why": "x"}, {"bytes": 2**30}, {"bytes": "much", "why": "x"}):
        assert Prepared.of({**told, "gpu_need": wrong}).gpu_need is None
    assert Saved.of(SAVED) == Saved("r1", "models:/m-1")
    scored = Scored.of(SCORED)
    assert (scored.metrics, scored.seen) == ({"f1": 0.5, "recall": 1.0}, 0.25)
    assert scored.production is not None
    assert (scored.production.version, scored.production.metrics, scored.production.seen) == (12, {"f1": 0.25}, 0.1)


SHARES: dict[str, tuple[dict[str, Any], float]] = {
    "its trainer does not say": ({"eval_lines": 200}, 0.0),
    "its trainer says that it does not know": ({"eval_lines": 200, "eval_lines_seen": None}, 0.0),
    "its trainer does not say of how many": ({"eval_lines_seen": 7}, 1.0),
}


@pytest.mark.parametrize(("scored", "share"), SHARES.values(), ids=SHARES.keys())
def test_the_share_of_the_evaluation_lines_that_a_model_was_trained_on(scored: dict[str, Any], share: float):
    assert Scored.of({"metrics": {"f1": 0.5}, **scored}).seen == share


WRONG: dict[str, tuple[Any, Any, list[str]]] = {
    "prep left a text": (Prepared, "done", ["The result of retrieve_resources is 'done'"]),
    "prep names no data sets": (Prepared, {}, ["retrieve_resources", "its field datasets is missing"]),
    "a data set has no id": (
        Prepared, {"datasets": [{"name": "a", "split": "train"}]}, ["its field datasets.0.id is missing", "a text"],
    ),
    "save names no run": (Saved, {**SAVED, "mlflow_run_id": None}, ["save_model", "field mlflow_run_id is null"]),
    "eval has no metrics": (Scored, {"eval_lines": 3}, ["eval_model", "its field metrics is missing"]),
    "a metric is null": (Scored, {"metrics": {"f1": None}}, ["its field metrics.f1 is null", "a finite number"]),
    "a metric is true": (Scored, {"metrics": {"f1": True}}, ["its field metrics.f1 is true"]),
    "the seen lines are a word": (
        Scored, {"metrics": {"f1": 0.5}, "eval_lines_seen": "some"}, ["its field eval_lines_seen is 'some'"],
    ),
    "a metric of the version in production is a word": (
        Scored,
        {"metrics": {"f1": 0.5}, "production": {"version": "1", "metrics": {"f1": "good"}}},
        ["its field production.metrics.f1 is 'good'"],
    ),
    "the version in production has no number": (
        Scored, {"metrics": {}, "production": {"version": "one", "metrics": {}}}, ["field production.version is 'one'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_result_is_an_error_that_names_the_step_and_the_field(kind: Any, value: object, words: list[str]):
    with pytest.raises(ResultError) as caught:
        kind.of(value)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("value", [None, {}, {"gpu_peak_bytes": "much"}, {"gpu_peak_bytes": True}])
def test_a_peak_that_is_not_told_ends_no_training(value: object):
    assert Trained.of(value).gpu_peak_bytes is None


def test_a_metric_that_ranks_the_model_is_needed():
    request = checked_request(parse_request(GOOD).model_dump(mode="json"))
    plan = Plan(task="train_model_cpu", command="train", network="none", cache_key="", cached_run="")
    scored = Scored.of({"metrics": {"speed": 3}})
    with pytest.raises(NothingToRegisterError, match=r"gave no metric .*, only \['speed'\]"):
        register_model("manual__1", request, Prepared.of(PREP), plan, Saved.of(SAVED), scored, SESSION)


def test_a_model_that_left_the_catalogue_is_registered_by_what_its_session_started_with(
    monkeypatch: pytest.MonkeyPatch,
):
    taking = Taking()
    monkeypatch.setattr(pipeline, "Registry", lambda: taking)
    request = checked_request({**parse_request(GOOD).model_dump(mode="json"), "model": "removed"})
    plan = Plan(task="train_model_cpu", command="train", network="none", cache_key="", cached_run="")
    scored = Scored.of({"metrics": {"coverage": 0.5}})
    given = ("manual__1", request, Prepared.of(PREP), plan, Saved.of(SAVED), scored)
    registered = register_model(*given, {"score": "coverage", "margin": 0.1})
    assert (registered["score_name"], registered["score"]) == ("coverage", 0.5)
    with pytest.raises(RequestError, match="was removed from the catalogue since: put its file back"):
        register_model(*given, {})  # the session of an earlier version does not say it


class Taking:
    """A registry that takes everything and remembers it."""

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        self.tags = dict(tags or {})
        self.registered: dict[str, Any] = {}
        self.run_tags: dict[str, str] = {}
        self.tables: dict[str, Any] = {}

    def run(self, run_id: str) -> Run:
        return Run(run_id, "1", "FINISHED", {}, {}, self.tags, None)

    def register(self, **given: Any) -> Version:
        self.registered = given
        return Version(given["name"], 1, given["run_id"], given["source"], 0.0)

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        self.run_tags = tags

    def keep_tables(self, run: Run, folder: str, tables: Mapping[str, Any]) -> None:
        self.tables = dict(tables)


def test_metrics_without_an_end_fit_into_what_the_registry_keeps(monkeypatch: pytest.MonkeyPatch):
    taking = Taking()
    monkeypatch.setattr(pipeline, "Registry", lambda: taking)
    request = checked_request(parse_request(GOOD).model_dump(mode="json"))
    plan = Plan(task="train_model_cpu", command="train", network="none", cache_key="", cached_run="")
    metrics = {f"f1 of the class {number:04} {'x' * 90}": number / 1000 for number in range(1000)} | {"f1": 0.5}
    rows = {"place": {"precision": 1, "recall": 1, "f1": 1}}
    scored = Scored.of({"metrics": metrics, "per_type": rows, "support": {"place": 3}})
    registered = register_model("manual__1", request, Prepared.of(PREP), plan, Saved.of(SAVED), scored, SESSION)
    assert registered["metrics"] == metrics
    assert taking.registered["metrics"] == metrics  # each is a metric of its own in MLflow
    assert len(taking.registered["description"]) < 5_000
    assert taking.registered["description"].startswith("f1 0.5000, ")
    assert taking.registered["description"].endswith(", and 981 more")
    assert taking.tables["by_type.json"]["data"] == [["place", 1, 1, 1, 3]]
    kept = json.loads(taking.run_tags["tarmac.metrics"])
    assert len(taking.run_tags["tarmac.metrics"]) < 8_000
    assert kept["f1"] == 0.5
    assert kept.items() < metrics.items()


@pytest.mark.parametrize(("cached_run", "taken"), [("", False), ("runs:/1", False), ("runs:/1", True)])
def test_what_is_registered_says_that_the_same_was_trained_before_and_again(
    monkeypatch: pytest.MonkeyPatch, cached_run: str, taken: bool
):
    taking = Taking({"tarmac.cached_from": "manual__0"} if taken else {})
    monkeypatch.setattr(pipeline, "Registry", lambda: taking)
    monkeypatch.setattr(pipeline, "same_model", lambda *_: "")
    request = checked_request(parse_request(GOOD).model_dump(mode="json"))
    plan = Plan(
        task="train_model_cpu",
        command="train",
        network="none",
        cache_key="k",
        before="manual__0",
        cached_run=cached_run,
    )
    scored = Scored.of({"metrics": {"f1": 0.5}})
    registered = register_model("manual__1", request, Prepared.of(PREP), plan, Saved.of(SAVED), scored, SESSION)
    assert registered["trained_before"] == ("" if taken else "manual__0")
    shown = sessions.result({}, {}, registered)["warnings"]
    assert bool([said for said in shown if "by manual__0" in said and "trained anew" in said]) is not taken


def test_a_request_is_the_same_after_its_way_through_the_tasks():
    request = parse_request({**GOOD, "gpu": True, "resources": {"gpus": 2}, "parameters": {"train_seconds": 3}})
    sent = request.model_dump(mode="json")
    assert checked_request(sent).model_dump(mode="json") == sent
    assert checked_request(sent).registered_name == "test_model"


def test_a_request_whose_model_left_the_catalogue_goes_on():
    sent = parse_request(GOOD).model_dump(mode="json") | {"model": "was_here"}
    assert checked_request(sent).model == "was_here"


@pytest.mark.parametrize(
    ("read", "task"),
    [(checked_request, "check_request_body"), (Prepared.of, "retrieve_resources"), (Scored.of, "eval_model")],
)
def test_a_task_without_what_it_needs_says_which_task_left_none(read: Any, task: str):
    with pytest.raises(MissingResultError, match=f"^{task} counts as done but left no result"):
        read(None)
