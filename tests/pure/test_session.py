"""Names of what belongs to a session: one run, one name, and the engine takes it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.base.session import container_name, session_labels, volume_name

DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
MANUAL = "manual__2026-11-22T06:24:21.083796+00:00"
_run_ids = st.text(min_size=1, max_size=300)


def test_the_name_can_be_read_and_is_the_same_for_the_same_run():
    name = volume_name("tarmac", "nlp_model_training", MANUAL)
    assert name.startswith("tarmac-manual-2026-11-22t06-24-21")
    assert name == volume_name("tarmac", "nlp_model_training", MANUAL)


PAIRS = {
    "runs that differ in their last microsecond": (("d", MANUAL), ("d", MANUAL.replace("796", "797"))),
    "runs that differ behind 200 equal characters": (("d", "r" * 200 + "1"), ("d", "r" * 200 + "2")),
    "runs that differ in letters the engine does not take": (("d", "run/é"), ("d", "run/è")),
    "runs that differ in case": (("d", "Run"), ("d", "run")),
    "the same run id of two DAGs": (("d1", "run"), ("d2", "run")),
    "a DAG and run that join to the same text": (("d-run", "1"), ("d", "run-1")),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_two_runs_never_share_a_name(one: tuple[str, str], other: tuple[str, str]):
    assert volume_name("tarmac", *one) != volume_name("tarmac", *other)
    assert container_name("tarmac", *one, "save_model") != container_name("tarmac", *other, "save_model")


def test_two_tasks_and_two_stacks_do_not_share_a_name():
    names = {container_name(stack, "d", "run", task) for stack in ("one", "two") for task in ("save_model", "cleanup")}
    assert len(names) == 4


RUN_IDS = ["", " ", "---", "é", "运行", "a" * 5_000, "../../etc", "a\nb", "🚀", MANUAL]


@pytest.mark.parametrize("run_id", RUN_IDS, ids=[ascii(run_id)[:30] for run_id in RUN_IDS])
def test_every_run_id_gives_names_that_the_engine_takes(run_id: str):
    for name in (volume_name("t", "d", run_id), container_name("t", "d", run_id, "update_model_metadata_registry")):
        assert DOCKER_NAME.fullmatch(name)
        assert len(name) <= 128


@given(st.lists(_run_ids, unique=True, min_size=2, max_size=20))
def test_distinct_runs_have_distinct_valid_names(run_ids: list[str]):
    names = [volume_name("tarmac", "nlp_model_training", run_id) for run_id in run_ids]
    assert len(set(names)) == len(run_ids)
    assert all(DOCKER_NAME.fullmatch(name) and len(name) <= 128 for name in names)


def test_the_labels_keep_the_run_id_as_it_is():
    assert session_labels("tarmac", "nlp_model_training", MANUAL) == {
        "tarmac.project": "tarmac",
        "tarmac.dag": "nlp_model_training",
        "tarmac.run": MANUAL,
    }
