"""Samples of devices and sessions: what is kept for how long, and what a session's page gets of it."""

from __future__ import annotations

import threading

import pytest

from support.fleet import World, device, entry, key, query, snapshot
from tarmac.base.errors import LedgerError
from tarmac.base.units import GIB
from tarmac.devices.snapshot import State
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.samples import POINTS, Reading, Samples
from tarmac.reaper.samples import IDLE_SECONDS, NO_DEVICE_SECONDS, TRAINING_SECONDS, Sampler, readings


@pytest.fixture
def training(ledger: Ledger) -> Ledger:
    """One session that trains on GPU-a, of 24 GiB, and uses 19."""
    tower = World(device("GPU-a"), device("GPU-b")).tower(ledger)
    ledger.enqueue(key(1), entry(24))
    tower.run_cycle()
    held = ledger.claim(key(1))
    assert held is not None
    assert list(held.bytes_by_device) == ["GPU-a"]
    assert ledger.renew(held, running=True, used_bytes=19 * GIB, peak_bytes=19 * GIB)
    return ledger


def seen(rate: int | None = 80, watts: float | None = 300.0) -> list[Reading]:
    return [Reading("GPU-a", 20 * GIB, rate, 61, watts), Reading("GPU-b", 0, 0, 30, 50.0)]


def shift(database: str, interval: str) -> None:
    """Let time pass, as far as the samples know."""
    for table in ("device_sample", "session_sample"):
        query(database, f"UPDATE {table} SET at = at - interval '{interval}'")


def put(database: str, minutes_ago: int) -> None:
    """Put the seconds into one minute, from its first second on."""
    for table, of in (("device_sample", "device_uuid"), ("session_sample", "run_id")):
        query(
            database,
            f"UPDATE {table} t SET at = date_trunc('minute', now()) - {minutes_ago} * interval '1 minute'"
            " + number * interval '1 second'"
            f" FROM (SELECT {of}, at, row_number() OVER (PARTITION BY {of} ORDER BY at) AS number FROM {table}"
            f" WHERE span = 1) n WHERE t.span = 1 AND n.{of} = t.{of} AND n.at = t.at",
        )


def rows(database: str, table: str, span: int) -> int:
    return int(query(database, f"SELECT count(*) FROM {table} WHERE span = %s", (span,))[0][0])


def test_a_sample_says_what_a_device_does_and_what_its_session_holds_and_uses(training: Ledger, database: str):
    with Samples(database) as samples:
        assert samples.any_on_devices()
        samples.add(seen())
        assert samples.latest()["GPU-a"] == {"utilisation": 80.0, "temperature": 61, "watts": 300.0}
        assert samples.latest()["GPU-b"]["utilisation"] == 0
        (one,) = samples.of_session(key(1))
        assert samples.of_session(key(2)) == []
        shift(database, "2 minutes")
        assert samples.latest() == {}, "what a device did minutes ago says nothing of now"
    assert (one["reserved_bytes"], one["used_bytes"]) == (24 * GIB, 19 * GIB)
    assert (one["utilisation"], one["watts"]) == (80.0, 300.0)


def test_seconds_become_minutes_and_a_summary_each_once(training: Ledger, database: str):
    with Samples(database) as samples:
        for rate in (0, 50, 100):
            samples.add(seen(rate))
        assert samples.summary(key(1)) is None
        put(database, -1)
        samples.roll_up()
        assert rows(database, "device_sample", 60) == 0, "the minute is not over"
        put(database, 5)
        samples.roll_up()
        samples.roll_up()
        assert (rows(database, "device_sample", 60), rows(database, "session_sample", 60)) == (2, 1)
        found = samples.summary(key(1))
        assert found is not None
        assert (found["samples"], found["reserved_bytes"], found["peak_bytes"]) == (3, 24 * GIB, 19 * GIB)
        assert found["utilisation"] == pytest.approx(50)
        # Another minute, later, of which two samples weigh less than three.
        query(database, "DELETE FROM session_sample WHERE span = 1; DELETE FROM device_sample WHERE span = 1")
        samples.add(seen(100))
        samples.add(seen(100))
        put(database, 1)
        samples.roll_up()
        found = samples.summary(key(1))
        assert found is not None
        assert found["samples"] == 5
        assert found["utilisation"] == pytest.approx((3 * 50 + 2 * 100) / 5)


def test_seconds_are_kept_for_an_hour_minutes_for_a_month_and_the_summary_for_ever(training: Ledger, database: str):
    with Samples(database) as samples:
        samples.add(seen())
        shift(database, "5 minutes")
        samples.roll_up()
        assert rows(database, "session_sample", 1) == 1
        shift(database, "1 hour")
        samples.roll_up()
        assert (rows(database, "session_sample", 1), rows(database, "device_sample", 1)) == (0, 0)
        assert (rows(database, "session_sample", 60), rows(database, "device_sample", 60)) == (1, 2)
        assert len(samples.of_session(key(1))) == 1, "the minutes are shown where the seconds are gone"
        shift(database, "30 days")
        samples.roll_up()
        assert (rows(database, "session_sample", 60), rows(database, "device_sample", 60)) == (0, 0)
        assert samples.summary(key(1)) is not None


def test_a_long_session_is_thinned_to_what_a_chart_needs(training: Ledger, database: str):
    query(
        database,
        "INSERT INTO session_sample (span, at, dag_id, run_id, samples, reserved_bytes, used_bytes, utilisation)"
        " SELECT 1, now() - n * interval '1 second', %s, %s, 1, 5, n, 50 FROM generate_series(0, 3599) n",
        key(1),
    )
    with Samples(database) as samples:
        found = samples.of_session(key(1))
    assert POINTS * 0.9 <= len(found) <= POINTS + 2
    assert max(one["used_bytes"] for one in found) == 3599, "no peak is lost"
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)


def test_what_the_driver_does_not_tell_is_not_known_and_never_nothing(training: Ledger, database: str):
    with Samples(database) as samples:
        samples.add(seen(None, None))
        assert samples.latest()["GPU-a"]["utilisation"] is None
        (one,) = samples.of_session(key(1))
        assert (one["utilisation"], one["watts"]) == (None, None)
        shift(database, "2 minutes")
        samples.roll_up()
        found = samples.summary(key(1))
        assert found is not None
        assert (found["utilisation"], found["watts"], found["samples"]) == (None, None, 1)


def test_the_sampler_looks_often_while_a_session_trains_and_seldom_else(training: Ledger, database: str):
    unread = device("GPU-c", total=None)
    look = snapshot(device("GPU-a", utilisation_percent=42, watts=99.5), unread)
    with Samples(database) as samples:
        sampler = Sampler(database, threading.Event(), lambda: look)
        assert sampler.step(samples) == TRAINING_SECONDS
        assert samples.latest() == {"GPU-a": {"utilisation": 42.0, "temperature": 40, "watts": 99.5}}
        held = training.claim(key(1))
        assert held is not None
        query(database, "DELETE FROM reservation")
        assert sampler.step(samples) == IDLE_SECONDS
    assert [one.uuid for one in readings(look)] == ["GPU-a"]


def test_a_machine_without_a_driver_asks_nothing_of_the_ledger():
    nothing = snapshot(state=State.NO_DRIVER)
    sampler = Sampler("postgresql://127.0.0.1:1/none", threading.Event(), lambda: nothing)
    with Samples("postgresql://127.0.0.1:1/none") as samples:
        assert sampler.step(samples) == NO_DEVICE_SECONDS
        with pytest.raises(LedgerError):
            samples.latest()
