"""What belongs to nothing, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.session import SessionKey
from tarmac.reaper.orphans import Container, Inventory, Orphans, Run, Task, Volume, find, twice

KEY = SessionKey("nlp_model_training", "run-1")
CPU, GPU, PREFLIGHT = "train_model_cpu", "train_model_gpu", "gpu_preflight_configuration"
ALIVE = ["scheduled", "queued", "running", "up_for_retry", "up_for_reschedule", "deferred", None, "a_state_of_tomorrow"]
FINISHED = ["success", "failed", "skipped", "upstream_failed", "removed"]


def run(state: str = "running", **tasks: str | None) -> Run:
    return Run(state, {task: Task(found, "2") for task, found in tasks.items()})


def container(**fields: Any) -> Container:
    known = {"id": "c1", "name": "a-container", "key": KEY, "owner": CPU, "generation": "2", "seconds": 1.0}
    return Container(**(known | fields))


def inventory(known: Run | None, *containers: Container, **fields: Any) -> Inventory:
    there: dict[str, Any] = {"reserved": [], "waiting": [], "volumes": []} | fields
    return Inventory(containers=containers, runs={} if known is None else {KEY: known}, **there)


def why_of_container(known: Run | None, **fields: Any) -> str | None:
    return next(iter(find(inventory(known, container(**fields))).containers.values()), None)


def why_of_reservation(known: Run | None) -> str | None:
    found = find(inventory(known, reserved=[KEY], waiting=[KEY]))
    assert found.reserved == found.waiting, "queued sessions and those with a reservation are judged alike"
    return found.reserved.get(KEY)


def why_of_volume(known: Run | None) -> str | None:
    return next(iter(find(inventory(known, volumes=[Volume("v1", KEY)])).volumes.values()), None)


def test_one_that_belongs_to_no_session_lives_as_long_as_it_says():
    helper = {"key": None, "owner": "predict", "allowed_seconds": 360}
    assert why_of_container(None, **helper, seconds=359.0) is None
    assert why_of_container(None, **helper, seconds=361.0) == "it was to live for 360 s at most"


@pytest.mark.parametrize("state", ALIVE)
def test_a_container_whose_task_may_still_come_is_left_alone(state: str | None):
    assert why_of_container(run(train_model_cpu=state)) is None


@pytest.mark.parametrize("state", FINISHED)
def test_a_container_whose_task_is_over_is_an_orphan(state: str):
    assert why_of_container(run(train_model_cpu=state)) == f"its task train_model_cpu is over ({state})"


CONTAINERS = {
    "its run was deleted": (None, {}, "its run was deleted"),
    "its task was cleared and its process is still to end": (
        run(train_model_cpu="restarting"), {}, "its task train_model_cpu was cleared",
    ),
    "its task was cleared and runs again": (
        run(train_model_cpu="running"), {"generation": "1"}, "its task train_model_cpu was cleared",
    ),
    "it is of a version that noted no generation": (run(train_model_cpu="running"), {"generation": ""}, None),
    "another task was cleared": (
        Run("running", {CPU: Task("running", "2"), "eval_model": Task(None, "5")}), {}, None,
    ),
    "its run was marked, its task not": (run("failed", train_model_cpu="scheduled"), {}, "its run is over (failed)"),
    "it cleans up after a run that was marked": (run("failed", cleanup="running"), {"owner": "cleanup"}, None),
    "its task has no row": (run("running"), {}, None),
    "its task has no row and its run is over": (run("success"), {}, "its run is over (success)"),
    "it fetches data again for a training": (
        run(train_model_cpu="running", retrieve_resources="success"), {"owner": CPU}, None,
    ),
    "the run is in a state of tomorrow": (run("paused", train_model_cpu="running"), {}, None),
    "it helps for a moment": (None, {"key": None, "owner": ""}, None),
    "it helps for a moment in a session": (None, {"owner": ""}, None),
    "it was to help for a moment": (
        run(), {"key": None, "owner": "", "seconds": 61.0}, "it was to live for a moment only",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("known", "fields", "why"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_a_container_is_an_orphan_when(known: Run | None, fields: dict[str, Any], why: str | None):
    assert why_of_container(known, **fields) == why


RESERVATIONS = {
    "its run was deleted": (None, "its run was deleted"),
    "it was just admitted": (run(gpu_preflight_configuration="deferred", train_model_gpu=None), None),
    "its training is to start": (run(gpu_preflight_configuration="success", train_model_gpu="queued"), None),
    "its training runs": (run(gpu_preflight_configuration="success", train_model_gpu="running"), None),
    "its training is tried again": (run(gpu_preflight_configuration="success", train_model_gpu="up_for_retry"), None),
    "its training is over": (
        run(gpu_preflight_configuration="success", train_model_gpu="failed"), "its training is over (failed)",
    ),
    "its preflight gave up": (
        run(gpu_preflight_configuration="failed", train_model_gpu=None), "its preflight is over (failed)",
    ),
    "the run was cleared from its start": (
        run(gpu_training_sensor=None, gpu_preflight_configuration=None, train_model_gpu=None),
        "its run was cleared from before it waited",
    ),
    "its preflight was lost with its scheduler": (
        run(gpu_training_sensor="success", gpu_preflight_configuration=None, train_model_gpu=None), None,
    ),
    "its training waits again": (run(gpu_preflight_configuration="success", train_model_gpu="deferred"), None),
    "nothing of it has begun": (
        run("queued", gpu_preflight_configuration=None, train_model_gpu=None, check_DAG_success=None), None,
    ),
    "its preflight is tried again": (run(gpu_preflight_configuration="up_for_retry", train_model_gpu=None), None),
    "Airflow tells of its training only": (run(train_model_gpu="queued"), None),
    "its preflight was skipped": (
        run(gpu_preflight_configuration="skipped", train_model_gpu=None), "its preflight is over (skipped)",
    ),
    "something before its preflight failed": (
        run(gpu_preflight_configuration="upstream_failed", train_model_gpu=None),
        "its preflight is over (upstream_failed)",
    ),
    "its training was removed": (
        run(gpu_preflight_configuration="success", train_model_gpu="removed"), "its training is over (removed)",
    ),
    "only the training was cleared": (run(gpu_preflight_configuration="success", train_model_gpu=None), None),
    "its tasks have no rows": (run(), None),
    "its run is over": (
        run("failed", gpu_preflight_configuration="success", train_model_gpu="scheduled"), "its run is over (failed)",
    ),
}  # fmt: skip


# Of a CPU session the branch has skipped the GPU's tasks.
BRANCH = {"gpu_training_sensor": "skipped", "gpu_preflight_configuration": "skipped", "train_model_gpu": "skipped"}
RESERVATIONS |= {
    "a CPU session waits": (run(**BRANCH, train_model_cpu="deferred"), None),
    "a CPU session trains": (run(**BRANCH, train_model_cpu="running"), None),
    "a CPU session is tried again": (run(**BRANCH, train_model_cpu="up_for_retry"), None),
    "only a CPU session's training was cleared": (run(**BRANCH, train_model_cpu=None), None),
    "a CPU session has trained": (
        run(**BRANCH, train_model_cpu="success"), "its training is over (success)",
    ),
    "a CPU session failed": (run(**BRANCH, train_model_cpu="failed"), "its training is over (failed)"),
    "a CPU session was marked while it waited": (
        run("failed", **BRANCH, train_model_cpu="skipped"), "its training is over (skipped)",
    ),
    "a CPU session was marked while its training was to start": (
        run("failed", **BRANCH, train_model_cpu="scheduled"), "its run is over (failed)",
    ),
    "a CPU session was cleared from its start": (
        run(gpu_training_sensor=None, gpu_preflight_configuration=None, train_model_gpu=None, train_model_cpu=None),
        "its run was cleared from before it waited",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("known", "why"), RESERVATIONS.values(), ids=RESERVATIONS.keys())
def test_a_reservation_is_an_orphan_when(known: Run | None, why: str | None):
    assert why_of_reservation(known) == why


VOLUMES = {
    "its run was deleted": (None, "its run was deleted"),
    "its run waits to start": (run("queued"), None),
    "its run goes on": (run("running", train_model_cpu="failed"), None),
    "its run is over": (run("success", delete_volume="success"), "its run is over (success)"),
    "its run was marked and cleans up": (run("failed", cleanup="running"), None),
    "the run is in a state of tomorrow": (run("paused"), None),
}


@pytest.mark.parametrize(("known", "why"), VOLUMES.values(), ids=VOLUMES.keys())
def test_a_volume_is_an_orphan_when(known: Run | None, why: str | None):
    assert why_of_volume(known) == why


def test_only_what_two_rounds_in_succession_find_is_sure():
    one, other = container(id="c1", seconds=70.0), container(id="c2")
    first = Orphans({one: "a"}, {KEY: "b"}, {}, {Volume("v1", KEY): "c"})
    later = Orphans({container(id="c1", seconds=72.0): "a", other: "a"}, {}, {KEY: "b"}, {Volume("v1", KEY): "c"})
    sure = twice(first, later)
    assert [found.id for found in sure.containers] == ["c1"]
    assert (dict(sure.reserved), dict(sure.waiting)) == ({}, {})
    assert list(sure.volumes) == [Volume("v1", KEY)]
    assert not twice(first, Orphans({}, {}, {}, {}))
