"""Which state a session is in, from what Airflow and the ledger say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tarmac.base import ids
from tarmac.base.states import ContainerHealth, LedgerState, SessionState, session_state

NOTHING, QUEUED, RESERVED, RUNNING = LedgerState
CHECKED = {ids.CHECK_REQUEST_BODY: "success"}
PREPARED = CHECKED | {
    ids.CREATE_UNIQUE_SESSION_PATH: "success",
    ids.RETRIEVE_RESOURCES: "success",
    ids.DETERMINE_CPU_OR_GPU: "success",
}
GPU = PREPARED | {ids.TRAIN_MODEL_CPU: "skipped"}
CPU = PREPARED | {ids.GPU_TRAINING_SENSOR: "skipped", ids.TRAIN_MODEL_GPU: "skipped"}
ADMITTED = GPU | {ids.GPU_TRAINING_SENSOR: "success", ids.GPU_PREFLIGHT_CONFIGURATION: "success"}

CASES: dict[str, tuple[str, dict[str, str | None], LedgerState, str]] = {
    "its run is queued": ("queued", {}, NOTHING, "requested"),
    "its request is being checked": ("running", {ids.CHECK_REQUEST_BODY: "running"}, NOTHING, "requested"),
    "its request is good": ("running", CHECKED, NOTHING, "preparing"),
    "its data is fetched": ("running", CHECKED | {ids.RETRIEVE_RESOURCES: "running"}, NOTHING, "preparing"),
    "it waits for other sessions to start": (
        "running", GPU | {ids.GPU_TRAINING_SENSOR: "up_for_reschedule"}, NOTHING, "queued",
    ),
    "it is in the queue": ("running", GPU | {ids.GPU_PREFLIGHT_CONFIGURATION: "deferred"}, QUEUED, "queued"),
    "it was admitted and its preflight goes on": (
        "running", GPU | {ids.GPU_PREFLIGHT_CONFIGURATION: "deferred"}, RESERVED, "admitted",
    ),
    "its training is to be started": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "queued"}, RESERVED, "admitted"),
    "its container is being started": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "running"}, RESERVED, "starting"),
    "its container runs": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "running"}, RUNNING, "training"),
    "its worker was lost and its container runs": (
        "running", ADMITTED | {ids.TRAIN_MODEL_GPU: "up_for_retry"}, RUNNING, "training",
    ),
    "it is queued again": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "deferred"}, QUEUED, "queued"),
    "its GPU training succeeded": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "success"}, NOTHING, "finishing"),
    "its reservation is still to be released": (
        "running", ADMITTED | {ids.TRAIN_MODEL_GPU: "success"}, RUNNING, "finishing",
    ),
    "its CPU training is scheduled": ("running", CPU | {ids.TRAIN_MODEL_CPU: "scheduled"}, NOTHING, "starting"),
    "it waits for cores and memory": ("running", CPU | {ids.TRAIN_MODEL_CPU: "deferred"}, QUEUED, "queued"),
    "it was given cores and memory while it waited": (
        "running", CPU | {ids.TRAIN_MODEL_CPU: "deferred"}, RESERVED, "admitted",
    ),
    "its CPU training has cores and memory and no container yet": (
        "running", CPU | {ids.TRAIN_MODEL_CPU: "running"}, RESERVED, "starting",
    ),
    "it fetches a model": ("running", CPU | {ids.TRAIN_MODEL_CPU: "running"}, NOTHING, "training"),
    "its container trains on the CPU": ("running", CPU | {ids.TRAIN_MODEL_CPU: "running"}, RUNNING, "training"),
    "it trains on the CPU": ("running", CPU | {ids.TRAIN_MODEL_CPU: "running"}, NOTHING, "training"),
    "its model is saved": (
        "running", CPU | {ids.TRAIN_MODEL_CPU: "success", ids.SAVE_MODEL: "running"}, NOTHING, "finishing",
    ),
    "its request was refused": ("running", {ids.CHECK_REQUEST_BODY: "failed"}, NOTHING, "finishing"),
    "its training failed": ("running", ADMITTED | {ids.TRAIN_MODEL_GPU: "failed"}, NOTHING, "finishing"),
    "its run succeeded": ("success", CPU, NOTHING, "done"),
    "its run was marked while it trained": ("failed", ADMITTED | {ids.TRAIN_MODEL_GPU: "running"}, RUNNING, "done"),
}  # fmt: skip


@pytest.mark.parametrize(("run", "tasks", "ledger", "wanted"), CASES.values(), ids=CASES.keys())
def test_a_session_s_state_when(run: str, tasks: dict[str, str | None], ledger: LedgerState, wanted: str):
    assert session_state(run, tasks, ledger) == wanted


def test_every_state_is_reached_and_on_its_page(repository: Path):
    page = (repository / "docs/session-states.md").read_text()
    assert {case[3] for case in CASES.values()} == set(SessionState)
    assert [row for state in SessionState if (row := f"\n| {state} | ") not in page] == []


def test_a_container_runs_whatever_its_health_check_says():
    assert {health for health in ContainerHealth if health.runs} == {"healthy", "unhealthy", "starting", "none"}
