"""The tower, end to end: many sessions, two devices, and everything that can go wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakes.fakegpu import FakeGpus
from gpu.field import ONE, OTHER, Field
from support.stack import Stack
from support.waiting import wait_for
from tarmac.admission.reasons import FITS_NOW, NOT_YET

GIB = 1024**3
# What CUDA itself takes besides what the training asks for, as the stand-in for CuPy does it.
CONTEXT_MIB = 512
# What an attempt says that finds a checkpoint of an earlier one.
WENT_ON = "of an earlier attempt: "


@pytest.fixture
def field(stack: Stack, gpus: FakeGpus, tiny: str) -> Iterator[Field]:
    """Two well devices, whatever a test before this one did to them."""
    found = Field(stack, gpus, tiny)
    for uuid in (ONE, OTHER):
        found.sql(
            f"UPDATE quarantine SET released_at = now(), released_by = 'a test' WHERE device_uuid = '{uuid}'"
            " AND released_at IS NULL"
        )
    yield found
    found.end_what_is_left()


def capacity(gpus: FakeGpus, uuid: str) -> int:
    return int(gpus.gpus[uuid]["total"]) - int(gpus.gpus[uuid]["reserved"])  # type: ignore[call-overload]


def test_ten_sessions_share_two_devices_and_none_is_hurt(field: Field, gpus: FakeGpus):
    """Eight GPU sessions of mixed sizes, one runs out of memory, and two CPU ones; others take memory meanwhile."""
    # They train until the others are queued behind them.
    first = [field.start(reserve="70GiB", mib=60_000, seconds=3600) for _ in range(2)]
    for run in first:
        field.trains(run)
    sizes = [("40GiB", 30_000), ("20GiB", 12_000), ("10GiB", 8_000), ("30GiB", 25_000), (None, 256)]
    runs = [*first, *(field.start(reserve=reserve, mib=mib, seconds=8) for reserve, mib in sizes)]
    # Reserves 2 GiB and needs 2.7: it runs out of memory, and fits the second time.
    short = field.start(reserve="2GiB", mib=2_250, seconds=4, checkpoint_seconds=0.1)
    cpus = [field.start(gpu=False, seconds=2) for _ in range(2)]
    field.waits_because(runs[2], "70.0 GiB reserved")
    field.stack.end_trainings(*first)
    # Memory of processes outside Tarmac: taken while sessions come and go.
    with gpus.hold(OTHER, 10_000):
        with ThreadPoolExecutor(4) as pool:
            every = [*runs, short, *cpus]
            ended = dict(zip(every, pool.map(lambda run: field.stack.finish(run, 480), every), strict=True))
        assert ended == dict.fromkeys([*runs, short, *cpus], "success"), {
            run: field.stack.states(run) for run, state in ended.items() if state != "success"
        }
    for uuid in (ONE, OTHER):
        # The fake refuses what does not fit on a device, so a refusal would be a training crashed by a neighbour.
        assert gpus.refused(uuid) == 0
        assert 0 < gpus.peak_bytes(uuid) <= capacity(gpus, uuid)
    assert field.outcomes(short) == ["out_of_memory", "success"]
    assert field.stack.tasks(short)["train_model_gpu"]["try_number"] >= 2
    text = field.log(short, "train_model_gpu")
    assert "ran out of GPU memory with 2.0 GiB reserved" in text
    assert WENT_ON in text
    logs = {run: field.log(run, "gpu_preflight_configuration") for run in runs}
    told = [run for run in runs if "Waiting for a GPU" in logs[run]]
    assert "GiB free of" in logs[runs[2]], "40 GiB do not fit beside 70, so it waited and said so"
    for run in told:
        # One that came a moment before an admission has waited for nothing but that.
        assert any(why in logs[run] for why in ("GiB free of", NOT_YET, FITS_NOW))
        assert field.stack.tasks(run)["gpu_preflight_configuration"]["try_number"] == 1
    slots = {field.stack.xcom(run, "gpu_pool_setup")["slots"] for run in runs}
    assert max(slots) >= 2, "the pool grew with the reservations"
    assert field.slots() >= 1
    for run in cpus:
        assert field.stack.states(run)["gpu_preflight_configuration"] == "skipped"
    field.assert_nothing_is_left()


def test_what_never_fits_is_refused_before_a_run_exists_and_two_devices_are_given(field: Field):
    said = field.stack.refused(field.request(reserve="500GiB"))
    assert "resources: this session never fits here: it needs 500.0 GiB" in said
    assert "the largest device offers 78.7 GiB" in said
    said = field.stack.refused(field.request(resources={"gpus": 3}, reserve="1GiB"))
    assert "needs 1.0 GiB on each of 3 devices, and this machine has 2" in said
    both = field.start(resources={"gpus": 2}, reserve="1GiB", seconds=3600)
    assert field.trains(both) == [ONE, OTHER]
    field.stack.end_trainings(both)
    assert field.stack.finish(both) == "success"
    field.assert_nothing_is_left()


def test_of_three_that_wait_for_memory_of_others_one_gives_up_one_is_cancelled_and_one_trains(
    field: Field, gpus: FakeGpus
):
    with gpus.hold(ONE, 60_000), gpus.hold(OTHER, 60_000):
        run = field.start(reserve="30GiB", seconds=1)
        cancelled = field.start(reserve="30GiB", seconds=1)
        late = field.start(reserve="30GiB", seconds=1, resources={"max_wait_seconds": 8})
        reason = field.waits_because(run, "processes outside Tarmac")
        assert "58.6 GiB used by others" in reason
        field.waits_because(cancelled, "processes outside Tarmac")
        board = field.stack.make("gpus").stdout
        # The first task of the GPU branch gives the number of the arrival, so each of the three may be the first.
        numbers = {name: int(number) for number, name in re.findall(r"^(\d+)\. (\S+) ", board, re.MULTILINE)}
        (first,), (second,) = field.sql(
            f"SELECT run_id FROM arrival WHERE run_id IN ('{run}', '{cancelled}') ORDER BY sequence"
        )
        assert min(numbers.values()) == 1
        assert numbers[first] < numbers[second]
        assert "processes outside Tarmac" in board
        field.cancel(cancelled)
        assert field.stack.finish(late) == "failed"
        wait_for("the one alone in the queue", lambda: field.sql("SELECT run_id FROM waiting") == [[run]])
    assert field.stack.finish(run) == "success"
    assert "58.6 GiB used by others" in field.log(run, "gpu_preflight_configuration")
    text = field.log(late, "gpu_preflight_configuration")
    assert "No GPU within resources.max_wait_seconds = 8: it needs 30.0 GiB" in text
    assert field.stack.tasks(late)["gpu_preflight_configuration"]["try_number"] == 1, "a second try would wait again"
    wait_for("the volume of the cancelled one to go", lambda: field.stack.session_volumes() == [])
    field.assert_nothing_is_left()


def test_an_offender_is_stopped_and_its_neighbour_is_not(field: Field, gpus: FakeGpus):
    with gpus.hold(OTHER, 75_000):  # both have to be on the one device
        neighbour = field.start(reserve="60GiB", mib=20_000, seconds=3600)
        field.trains(neighbour)
        offender = field.start(reserve="9GiB", mib=4_000, seconds=10, overrun_mib=15_000)
        wait_for("the offender to be stopped", lambda: field.outcomes(offender))
        field.stack.end_trainings(neighbour)
        assert field.stack.finish(neighbour) == "success"
    assert field.outcomes(neighbour) == ["success"]
    # Alone on the device it hurts no other session, so the second attempt may end as it likes.
    assert field.stack.finish(offender) == "success"
    used = field.sql(f"SELECT outcome, devices FROM history WHERE run_id = '{offender}' ORDER BY id")
    assert used[0] == ["overrun", "{" + ONE + "}"]
    text = field.log(offender, "train_model_gpu")
    assert "where 9.0 GiB" in text
    assert "the device was running short for its neighbours" in text
    assert gpus.refused(ONE) == 0
    field.assert_nothing_is_left()


def test_a_hung_training_is_found_stopped_and_tried_again(field: Field):
    often = {"checkpoint_seconds": 0.1}
    run = field.start(reserve="1GiB", seconds=600, hang_after=2, resources={"stall_seconds": 10}, **often)
    # It hangs at each attempt, and on a slow machine more than one may be over before anybody looks.
    wait_for("the hung attempt to be recorded", lambda: field.outcomes(run)[:1] == ["hung"])
    wait_for("it to go on where it was", lambda: WENT_ON in field.log(run, "train_model_gpu"))
    assert field.stack.tasks(run)["train_model_gpu"]["try_number"] >= 2
    # It would hang for ever, so it is ended here.
    field.cancel(run)
    assert field.stack.finish(run) == "failed"
    assert "made no progress for" in field.log(run, "train_model_gpu")
    wait_for("its device to be released", lambda: field.sql("SELECT run_id FROM reservation") == [])
    wait_for("its containers to be gone", lambda: field.stack.session_containers() == [])
    wait_for("its traces to be gone", lambda: field.stack.session_volumes() == [])
    field.assert_nothing_is_left()


def test_a_lost_device_is_quarantined_and_its_session_goes_on_elsewhere(field: Field, gpus: FakeGpus):
    run = field.start(reserve="4GiB", seconds=3600, checkpoint_seconds=0.1)
    (lost,) = field.trains(run)
    field.checkpointed(run)
    gpus.set(lost, err="* 15")  # NVML_ERROR_GPU_IS_LOST, whatever is asked
    wait_for("the loss to be recorded", lambda: field.outcomes(run) == ["device_lost"])
    other = ({ONE, OTHER} - {lost}).pop()
    wait_for("it to train elsewhere", lambda: field.trains(run) == [other])
    field.stack.end_trainings(run)
    assert field.stack.finish(run) == "success"
    assert field.outcomes(run) == ["device_lost", "success"]
    assert WENT_ON in field.log(run, "train_model_gpu")
    used = field.sql(f"SELECT devices FROM history WHERE run_id = '{run}' ORDER BY id")
    assert used == [["{" + lost + "}"], ["{" + other + "}"]]
    gpus.set(lost, err=None)
    again = [field.start(reserve="50GiB", seconds=3600)]
    assert field.trains(again[0]) != [lost]
    again.append(field.start(reserve="50GiB", seconds=3600))
    field.waits_because(again[1], "needs 50.0 GiB")
    board = field.stack.make("gpus").stdout
    assert f"make release-gpu GPU={lost}" in board
    done = field.stack.make("release-gpu", f"GPU={lost}")
    assert done.returncode == 0, done.stderr
    assert field.trains(again[1]) == [lost]
    field.stack.end_trainings(*again)
    assert [field.stack.finish(one) for one in again] == ["success", "success"]
    field.assert_nothing_is_left()


def test_history_makes_the_next_reservation_smaller(field: Field):
    """The first session of its kind reserves the default, the next one what was measured, and a margin."""
    mine = 333  # a kind of session that no other test has
    held = (mine + CONTEXT_MIB) * 1024**2
    for rule, least, most in (("default", GIB, GIB), ("history", held, GIB)):
        run = field.start(mib=mine, seconds=3600)
        measured = f"SELECT 1 FROM reservation WHERE run_id = '{run}' AND peak_bytes >= {held}"
        wait_for("all of its memory to be measured", lambda query=measured: field.sql(query))
        field.stack.end_trainings(run)
        assert field.stack.finish(run) == "success"
        reserved = field.stack.xcom(run, "gpu_preflight_configuration")
        assert reserved["rule"] == rule
        (count,) = reserved["bytes"].values()
        assert least <= count <= most * 1.3
    peaks = {int(row[0]) for row in field.sql(f"SELECT peak_bytes FROM history WHERE run_id = '{run}'")}
    assert peaks == {held}
    field.assert_nothing_is_left()


def test_a_training_and_its_reservation_survive_down_and_up(field: Field):
    run = field.start(reserve="70GiB", seconds=3600)
    (device,) = field.trains(run)
    (container,) = field.stack.session_containers("tarmac.task=train_model_gpu")
    done = field.stack.make("down")
    assert done.returncode == 0, done.stderr
    assert run in done.stderr, "make down says what still trains"
    done = field.stack.make("up")
    assert done.returncode == 0, done.stderr
    field.stack.log_in()
    # Its lease may have run out while no task was there to renew it; a newcomer must not take that for its death.
    both = field.start(reserve="70GiB", seconds=1, resources={"gpus": 2})
    field.waits_because(both, f"{device} has")
    assert field.stack.session_containers("tarmac.task=train_model_gpu") == [container]
    field.stack.end_trainings(run)
    assert [field.stack.finish(run), field.stack.finish(both)] == ["success", "success"]
    assert field.outcomes(run) == ["success"]
    field.assert_nothing_is_left()


def test_a_release_admits_the_next_one_at_once_priority_first_and_equals_by_arrival(field: Field):
    first = [field.start(reserve="70GiB", seconds=600) for _ in range(2)]
    for run in first:
        field.trains(run)
    low = field.start(reserve="70GiB", seconds=1, priority=-1)
    field.waits_because(low, "needs 70.0 GiB")
    equal = field.start(reserve="70GiB", seconds=1)
    field.waits_because(equal, "needs 70.0 GiB")
    high = field.start(reserve="70GiB", seconds=1, priority=5)
    field.waits_because(high, "needs 70.0 GiB")
    for run in first:
        field.cancel(run)
    # The cycle that follows a release admits the next one: meanwhile no cycle is due only because time has passed.
    admitted = f"""
        WITH no_cycle_is_due AS (UPDATE tower SET passed_at = clock_timestamp() + interval '1 hour')
        SELECT 1 FROM admission WHERE run_id = '{high}'
    """
    wait_for("the next one to be admitted", lambda: field.sql(admitted))
    assert [field.stack.finish(run) for run in (low, equal, high)] == ["success"] * 3
    order = [row[0] for row in field.sql("SELECT run_id FROM admission ORDER BY id DESC LIMIT 3")]
    assert order == [low, equal, high]
    wait_for("the traces of those cancelled to be gone", lambda: field.stack.session_volumes() == [])
    field.assert_nothing_is_left()
