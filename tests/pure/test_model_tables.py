"""What the commands about models print, and what `make reproduce` sends and compares."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tarmac.cli import reproduce
from tarmac.cli.follow import summary
from tarmac.cli.model_tables import age, comparison, history_rows, instant, step_lines, version_rows
from tarmac.registry.client import Run, Version
from tarmac.registry.facts import Trained, compared_facts
from tarmac.registry.promotion import Step
from tarmac.registry.repetition import again, differences, mismatches

NOW = 1_000_000.0


def version(number: int, **given: Any) -> Version:
    tags = {"tarmac.score_name": "f1", "tarmac.score": "0.51239", "tarmac.data": "wnut17"}
    known: dict[str, Any] = {"run_id": "r", "source": "models:/m-1", "created": NOW - 3600, "tags": tags}
    return Version("ner", number, **(known | given))


def run(**given: Any) -> Run:
    known: dict[str, Any] = {
        "params": {"model": "ner", "max_steps": "500", "device": "cpu", "data.a.train.id": "t1", "train_lines": "9"},
        "metrics": {"f1": 0.5, "seconds": 75.0, "memory_peak_bytes": 300 * 2.0**20, "best_step": 3},
        "tags": {"tarmac.image": "tarmac/trainer@sha256:1"},
    }
    known |= given
    return Run("r", "1", "FINISHED", known["params"], known["metrics"], known["tags"], NOW)


AGES = {
    "seconds": (8, "8 s"),
    "hours": (7_500, "2 h 5 min"),
    "a day and a half, still hours": (129_600, "36 h 0 min"),
    "two days": (172_800, "2 days"),
}


@pytest.mark.parametrize(("seconds", "said"), AGES.values(), ids=AGES.keys())
def test_an_age_is_told_as_people_do(seconds: float, said: str):
    assert age(seconds) == said


ROWS: dict[str, tuple[Version, list[str]]] = {
    "as its session recorded it": (version(2), ["ner", "2", "-", "f1 0.5124", "wnut17", "1 h 0 min", ""]),
    "in production": (
        version(2, aliases=("production",)),
        ["ner", "2", "production", "f1 0.5124", "wnut17", "1 h 0 min", ""],
    ),
    "registered without our tags": (version(1, tags={}), ["ner", "1", "-", "-", "-", "1 h 0 min", ""]),
    "taken from an earlier session instead of trained": (
        version(2, tags={"tarmac.same_as": "ner/1"}),
        ["ner", "2", "-", "-", "-", "1 h 0 min", "same model as ner/1"],
    ),
    "with a tag that a person changed": (
        version(1, tags={"tarmac.score_name": "f1", "tarmac.score": "good"}),
        ["ner", "1", "-", "-", "-", "1 h 0 min", ""],
    ),
    "made by a clock that is ahead": (version(1, created=NOW + 9), ["ner", "1", "-", "f1 0.5124", "wnut17", "0 s", ""]),
}  # fmt: skip


@pytest.mark.parametrize(("one", "row"), ROWS.values(), ids=ROWS.keys())
def test_a_version_is_a_row(one: Version, row: list[str]):
    assert version_rows([one], now=NOW) == [row]


def rows_of(a: Trained, b: Trained) -> dict[tuple[str, str], tuple[str, str, str]]:
    """(section, name) to (star, left, right)."""
    return {(section, name): (star, left, right) for star, section, name, left, right in comparison(a, b)}


def test_two_versions_are_shown_side_by_side_and_what_differs_has_a_star():
    other = run(params={"model": "ner", "max_steps": "900", "device": "cuda", "data.a.train.id": "t1"})
    rows = rows_of(Trained(version(1), run(), None), Trained(version(2), other, None))
    assert rows["metric", "f1"] == ("", "0.5000", "0.5000")
    assert rows["parameter", "max_steps"] == ("*", "500", "900")
    assert rows["data", "train"] == ("", "t1", "t1")
    assert rows["data", "train_lines"] == ("*", "9", "-")
    assert rows["training", "device"] == ("*", "cpu", "cuda")
    assert rows["training", "duration"] == ("", "1 min 15 s", "1 min 15 s")
    assert rows["training", "memory peak"] == ("", "300 MiB", "300 MiB")
    assert rows["training", "code"] == ("", "the trainer's own", "the trainer's own")
    assert rows["origin", "image"] == ("", "tarmac/trainer@sha256:1", "tarmac/trainer@sha256:1")
    assert not any("best_step" in name for _, name in rows)


def test_data_sets_are_the_same_by_what_is_in_them_and_what_is_missing_is_a_dash():
    def trained(number: int, **params: str) -> Trained:
        return Trained(version(number), run(params={"model": "ner", **params}), None)

    both = {"data.dev.eval.id": "e1", "data.dev.eval.lines": "None", "threshold": "None"}
    one = trained(1, **both, **{"data.a.b.train.id": "t1", "data.a.b.train.lines": "9", "data.a.b.train.bytes": "99"})
    rows = rows_of(one, trained(2, **{"data.news.train.id": "t1", "data.news.train.lines": "9"}))
    assert rows["data", "train"] == ("", "t1 (9 lines)", "t1 (9 lines)"), "the same content under two names"
    assert rows["data", "train is called"] == ("*", "a.b", "news")
    assert rows["data", "eval"] == ("*", "e1", "-")
    assert ("parameter", "threshold") not in rows
    several = {"data.b.train.id": "t1", "data.a.train.id": "t2", "data.b.train.lines": "1"}
    rows = rows_of(trained(1, **several), trained(2, **{"data.x.train.id": "t2", "data.y.train.id": "t1"}))
    assert rows["data", "train"] == ("*", "t1 (1 line), t2", "t1, t2")
    assert rows["data", "train is called"] == ("*", "b, a", "y, x")


def test_a_script_is_shown_by_its_id_with_what_it_measured_and_without_parameters_that_it_never_used():
    own = Trained(
        version(2),
        # As an earlier version of Tarmac recorded it: with the model's defaults.
        run(
            params={"model": "ner", "device": "cpu", "max_steps": "3000", "learn_rate": "0.001"},
            metrics={"f1": 0.5, "script.loss": 0.25, "script.odd": -1e308},
            tags={"tarmac.base_model": "ner/1", "tarmac.image": "tarmac/trainer@sha256:1"},
        ),
        {"script": "s1/s1.py", "base_model": "ner/1", "parameters": {"learn_rate": 0.001}},
    )
    rows = rows_of(Trained(version(1), run(), {"script": None, "parameters": {}}), own)
    assert rows["training", "code"] == ("*", "the trainer's own", "script s1/s1.py")
    assert rows["training", "base model"] == ("*", "-", "ner/1")
    assert rows["metric", "script.loss"] == ("*", "-", "0.2500")
    assert rows["metric", "script.odd"] == ("*", "-", "-1.0000e+308")
    assert rows["parameter", "max_steps"] == ("*", "500", "-"), "a default that the script knows nothing of"
    assert rows["parameter", "learn_rate"] == ("*", "-", "0.001"), "what the request gave it"


def test_a_script_is_known_from_what_save_recorded_where_the_request_is_gone():
    own = run(params={"model": "ner", "script": "s1/s1.py", "base_model": "ner/1"}, tags={"tarmac.script": "s1/s1.py"})
    rows = rows_of(Trained(version(1), own, None), Trained(version(2), own, None))
    assert rows["training", "code"] == ("", "script s1/s1.py", "script s1/s1.py")
    assert ("parameter", "script") not in rows
    assert ("parameter", "base_model") not in rows


def test_a_version_whose_run_was_deleted_is_compared_by_what_its_own_tags_say():
    tags = version(1).tags | {"tarmac.model": "ner", "tarmac.same_as": "ner/9"}
    rows = rows_of(Trained(version(1, tags=tags), None, None), Trained(version(2), run(), None))
    assert rows["metric", "f1"] == ("*", "0.5124", "0.5000")
    assert rows["training", "same model as"] == ("*", "ner/9", "-")
    assert rows["origin", "model"] == ("", "ner", "ner")
    assert rows["training", "device"] == ("*", "-", "cpu")


AT = datetime(2026, 11, 24, 9, 30, tzinfo=timezone(timedelta(hours=1)))


def test_a_step_tells_what_was_before_who_and_why():
    step = Step("ner", "rollback", 3, None, "ada", "it is odd", None, None, None, None, None, AT)
    assert step_lines(step) == [
        "ner: nothing is in production, version 3 was before",
        "  since  2026-11-24T08:30:00.000000Z",
        "  by     ada (a step back)",
        "  why    it is odd",
    ]
    assert history_rows([step]) == [["2026-11-24T08:30:00.000000Z", "3", "-", "rollback", "ada", "it is odd"]]


def test_a_step_that_was_found_in_mlflow_says_so():
    step = Step("ner", "model_deleted", 3, None, "a user of MLflow", "the model was deleted", *[None] * 5, AT)
    assert step_lines(step)[2] == "  by     a user of MLflow (the model was deleted there)"


def test_an_instant_is_written_so_that_it_can_be_asked_for_again():
    moment = datetime(2026, 11, 24, 8, 30, 0, 123456, tzinfo=UTC)
    assert datetime.fromisoformat(instant(moment)) == moment


MISMATCHES: dict[str, tuple[dict[str, float], dict[str, float], list[str]]] = {
    "equal": ({"f1": 0.5}, {"f1": 0.5}, []),
    "equal but for what a float loses on its way through text": ({"f1": 0.1 + 0.2}, {"f1": 0.3}, []),
    "another value": ({"f1": 0.5}, {"f1": 0.500001}, ["f1: 0.500000 in the record, 0.500001 now"]),
    "a metric that is missing now": ({"f1": 0.5}, {}, ["f1: 0.500000 in the record, none now"]),
    "a metric that is new": ({}, {"f1": 0.5}, ["f1: none in the record, 0.500000 now"]),
}


@pytest.mark.parametrize(("record", "now", "said"), MISMATCHES.values(), ids=MISMATCHES.keys())
def test_metrics_match_or_are_named(record: dict[str, float], now: dict[str, float], said: list[str]):
    assert mismatches(record, now) == said


def test_a_repetition_trains_anew_under_a_name_of_its_own_and_is_never_promoted():
    request = {"model": "ner", "name": None, "seed": 3, "promote": "auto", "no_cache": False, "base_model": "ner/1"}
    once = again(request)
    assert once == request | {"name": "ner-reproduced", "no_cache": True, "promote": "never"}
    assert again(once) == once, "of a repetition, too"
    assert len(again(request | {"name": "x" * 64})["name"]) == 64


def test_what_was_not_the_same_is_named():
    assert differences(run(), run()) == []
    changed = run(params={**run().params, "data.a.train.id": "t2", "max_steps": "9"}, tags={})
    assert differences(run(), changed) == [
        "data.a.train.id: t1 in the record, t2 now",
        "image: tarmac/trainer@sha256:1 in the record, None now",
    ]


def test_who_follows_a_run_reads_that_nothing_was_trained_and_what_became_of_the_promotion():
    registered = {"name": "ner", "version": "3", "url": "http://x"}
    said = summary({"cached_from": "manual__1"}, None, registered | {"promotion": "promoted: better by 0.1"})
    assert any("nothing was trained: the same training was done before, by manual__1" in line for line in said)
    assert any(line.strip() == "promoted: better by 0.1" for line in said)
    assert "asked" not in "\n".join(summary(None, None, registered | {"promotion": "not asked for"}))


class Records:
    """A registry that holds the record of one run and of its repetition."""

    def __init__(self, record: Run, repetition: Run) -> None:
        self.runs = {"first": record, "second": repetition}

    def find_runs(self, tag: str, value: str) -> list[Run]:
        return [self.runs[value]]

    def record(self, run: Run, name: str) -> dict[str, Any]:
        return {"model": "ner", "datasets": {}, "no_cache": False, "promote": "auto"}


class Api:
    """An Airflow that takes one request."""

    def trigger(self, request: dict[str, Any]) -> str:
        assert request["no_cache"] is True, "it is to train anew"
        return "second"


REPETITIONS = {
    "the same": ({"f1": 0.8}, 0, 0, "The metrics match."),
    "another metric": ({"f1": 0.7}, 0, 1, "f1: 0.800000 in the record, 0.700000 now\nThe metrics do not match."),
    "it failed": ({"f1": 0.8}, 1, 1, "The repetition failed, so nothing was compared."),
}


@pytest.mark.parametrize(("metrics", "followed", "code", "said"), REPETITIONS.values(), ids=REPETITIONS)
def test_a_repetition_says_whether_its_metrics_match(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    metrics: dict[str, float],
    followed: int,
    code: int,
    said: str,
):
    record = run(tags={**run().tags, "tarmac.metrics": json.dumps({"f1": 0.8})})
    repetition = run(tags={**run().tags, "tarmac.metrics": json.dumps(metrics)})
    monkeypatch.setattr(reproduce, "Registry", lambda: Records(record, repetition))
    monkeypatch.setattr(reproduce, "log_in", Api)
    monkeypatch.setattr(reproduce, "follow_run", lambda api, run_id: followed)
    assert reproduce.reproduce_run("first") == code
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(lines).endswith(said)


SCORED = {"tarmac.model": "ner", "tarmac.score": "0.5", "tarmac.evaluation_set": "e1"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        (
            {"tarmac.evaluation_set": "e2"},
            "The scores are from different evaluation lines, so they cannot be compared.",
        ),
        ({"tarmac.evaluation_set": None}, "It is not recorded whether both scores are from the same evaluation lines"),
        ({"tarmac.model": "pos", "tarmac.evaluation_set": "e2"}, "The two versions are of different kinds of model"),
        ({"tarmac.score": None, "tarmac.evaluation_set": "e2"}, ""),
    ],
)
def test_scores_that_cannot_be_compared_are_told(changed: dict[str, str | None], said: str):
    other = {key: value for key, value in (SCORED | changed).items() if value is not None}
    pair = [Trained(version(number, tags=tags), run(), None) for number, tags in enumerate((SCORED, other), start=1)]
    cautions = [one["caution"] for one in compared_facts(*pair)]
    assert cautions[0] == cautions[1]
    assert cautions[0].startswith(said) if said else cautions[0] == ""
