"""CPU sessions reserve cores and memory of a host, on a real Postgres: in order, with reasons, never too much."""

from __future__ import annotations

from typing import Any

import pytest

from support.fleet import RAW_HOST_INSERT, World, cpu_entry, device, entry, host_sums, key, query
from tarmac.admission.estimate import Outcome
from tarmac.admission.placement import STARVED_AFTER, HostNeed
from tarmac.base.errors import LedgerError
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.host_cycle import run_host_cycle


@pytest.fixture(autouse=True)
def _host(ledger: Ledger) -> None:
    """A host that offers 3 cores and 12 GiB."""
    ledger.put_host("local", 14 * GIB, 3000, 12 * GIB, 3000)


def ask(ledger: Ledger, name: int | str, gib: float = 4, cores: float = 1, **fields: Any) -> SessionKey:
    ledger.enqueue(key(name), cpu_entry(gib, cores, **fields))
    run_host_cycle(ledger, key(name))
    return key(name)


def end(ledger: Ledger, one: SessionKey, outcome: Outcome = Outcome.SUCCESS, **fields: Any) -> None:
    held = ledger.claim(one)
    assert held is not None
    assert ledger.finish(held, outcome, **fields)


def reason(ledger: Ledger, one: SessionKey) -> str:
    place = ledger.place_in_queue(one)
    assert place is not None
    assert place.on_host
    return str(place.why)


def test_ten_at_once_on_a_host_with_room_for_three_run_three_at_a_time(ledger: Ledger, database: str):
    keys = [ask(ledger, number) for number in range(10)]
    done: list[SessionKey] = []
    most = 0
    while True:
        running = [one for one in keys if ledger.reservation(one)]
        most = max(most, len(running))
        if not running:
            break
        assert host_sums(database) == {"local": (4 * GIB * len(running), 1000 * len(running))}
        end(ledger, running[0])
        done.append(running[0])
        run_host_cycle(ledger)
    assert most == 3
    assert done == keys, "in the order of arrival"


def test_a_queued_session_reads_the_numbers_and_which_sessions_hold_what(ledger: Ledger):
    for number in range(3):
        ask(ledger, number)
    waits = ask(ledger, "x", 6, 2)
    assert reason(ledger, waits) == (
        "needs 2 cores and 6.0 GiB of memory: local has 0 of 3 cores and 0 MiB of 12.0 GiB free "
        "(run-0 holds 1 core and 4.0 GiB; run-1 holds 1 core and 4.0 GiB; run-2 holds 1 core and 4.0 GiB)"
    )


def test_a_reason_says_when_history_expects_room(ledger: Ledger, database: str):
    for number in range(3):
        end(ledger, ask(ledger, f"before-{number}"))
    query(database, "UPDATE history SET seconds = 600")
    for number in range(3):
        ask(ledger, number)
    assert "; that should be free in about 10 min, if sessions take as long as before" in reason(
        ledger, ask(ledger, "x")
    )


def test_cores_are_reserved_where_memory_is_left_and_the_other_way_round(ledger: Ledger):
    first = ask(ledger, "cores", 1, 3)
    assert ledger.reservation(first)
    assert not ledger.reservation(ask(ledger, "no cores left", 1, 0.5))
    end(ledger, first)
    run_host_cycle(ledger)
    big = ask(ledger, "memory", 11, 0.5)
    assert ledger.reservation(big)
    assert not ledger.reservation(ask(ledger, "no memory left", 2, 0.5))


def test_a_smaller_session_passes_one_that_does_not_fit_and_not_for_ever(ledger: Ledger):
    held = [ask(ledger, "a", 4, 1), ask(ledger, "b", 4, 1)]
    large = ask(ledger, "large", 12, 3)
    for number in range(STARVED_AFTER):
        end(ledger, held.pop(0))
        small = ask(ledger, f"small-{number}")
        assert ledger.reservation(small), "there is room that the large one cannot use"
        held.append(small)
    end(ledger, held.pop(0))
    late = ask(ledger, "late")
    assert not ledger.reservation(late), "the host is kept free now"
    assert reason(ledger, late).endswith("which is kept free for run-large, waiting longer")
    end(ledger, held.pop(0))
    run_host_cycle(ledger)
    assert ledger.reservation(large)


def test_higher_priority_goes_first(ledger: Ledger):
    full = ask(ledger, "full", 12, 3)
    low, high = ask(ledger, "low", 12, 3), ask(ledger, "high", 12, 3, priority=5)
    end(ledger, full)
    assert run_host_cycle(ledger) == [high]
    assert not ledger.reservation(low)


def test_a_session_without_a_heartbeat_is_not_admitted(ledger: Ledger, database: str):
    full = ask(ledger, "full", 12, 3)
    ask(ledger, "gone")
    query(database, "UPDATE waiting SET seen_at = clock_timestamp() - interval '1 minute'")
    end(ledger, full)
    assert run_host_cycle(ledger) == []


def test_memory_of_gpu_sessions_counts_and_they_do_not_wait_for_it(ledger: Ledger, database: str):
    for number in range(3):
        ask(ledger, number)
    ledger.enqueue(key("gpu"), entry(10, host=HostNeed(4 * GIB)))
    assert World(device("GPU-a")).tower(ledger).run_cycle() == [key("gpu")]
    assert query(database, "SELECT beside_bytes, reserved_bytes FROM host") == [(4 * GIB, 12 * GIB)]
    for number in range(3):
        end(ledger, key(number))
    assert ledger.reservation(ask(ledger, "beside", 8, 1))
    waits = ask(ledger, "x", 4, 1)
    assert "GPU sessions may take 4.0 GiB of it (run-gpu holds 4.0 GiB; run-beside holds" in reason(ledger, waits)
    held = ledger.claim(key("gpu"))
    assert held is not None
    assert (held.bytes_by_device, held.host_bytes) == ({"GPU-a": 10 * GIB}, 4 * GIB)
    assert ledger.finish(held, Outcome.SUCCESS, peak_bytes=GIB)
    assert run_host_cycle(ledger) == [waits]
    assert query(database, "SELECT devices, reserved_bytes FROM history WHERE run_id = 'run-gpu'") == [
        (["GPU-a"], 10 * GIB)
    ]


def test_neither_kind_of_session_counts_as_overtaking_the_other(ledger: Ledger):
    tower = World(device("GPU-a")).tower(ledger)
    ledger.enqueue(key("gpu"), entry(70))
    ledger.enqueue(key("large"), entry(79))
    assert tower.run_cycle() == [key("gpu")]
    for number in range(2 * STARVED_AFTER):
        end(ledger, ask(ledger, number))
    ledger.enqueue(key("small"), entry(5))
    assert tower.run_cycle() == [key("small")], "no device is kept free for the large one"


def test_a_gpu_cycle_admits_no_cpu_session_and_its_places_do_not_count_it(ledger: Ledger):
    full = ask(ledger, "full", 12, 3)
    waits = ask(ledger, "x")
    end(ledger, full)
    tower = World(device("GPU-a")).tower(ledger)
    ledger.enqueue(key("gpu"), entry(200))
    assert tower.run_cycle() == []
    place = ledger.place_in_queue(key("gpu"))
    assert place is not None
    assert place.ahead == 0
    assert not ledger.reservation(waits)
    assert ledger.slots() == 0, "gpu_pool is for sessions with a device"


def test_a_capacity_does_not_shrink_below_what_is_reserved(ledger: Ledger):
    ask(ledger, 0, 8, 2)
    ledger.put_host("local", 6 * GIB, 1000, 4 * GIB, 1000)
    (host,) = ledger.hosts()
    assert (host.capacity_bytes, host.capacity_millicpus) == (8 * GIB, 2000)
    end(ledger, key(0))
    ledger.put_host("local", 6 * GIB, 1000, 4 * GIB, 1000)
    (host,) = ledger.hosts()
    assert (host.capacity_bytes, host.capacity_millicpus) == (4 * GIB, 1000)


def test_a_host_that_grows_makes_a_cycle_due(ledger: Ledger, database: str):
    ask(ledger, "full", 12, 3)
    waits = ask(ledger, "x")
    assert query(database, "SELECT host_dirty FROM tower") == [(False,)]
    ledger.put_host("local", 32 * GIB, 8000, 30 * GIB, 8000)
    assert query(database, "SELECT host_dirty FROM tower") == [(True,)]
    assert run_host_cycle(ledger) == [waits]
    ledger.put_host("local", 32 * GIB, 8000, 30 * GIB, 8000)
    assert query(database, "SELECT host_dirty FROM tower") == [(False,)], "nothing has changed"


def test_code_that_knows_no_cycle_cannot_over_admit_a_host(ledger: Ledger, database: str):
    ask(ledger, 0, 10, 1)
    with pytest.raises(LedgerError, match="host_never_over_admitted"):
        query(database, RAW_HOST_INSERT, ("x", 3 * GIB, 100))
    with pytest.raises(LedgerError, match="host_never_over_admitted"):
        query(database, RAW_HOST_INSERT, ("x", GIB, 2100))


def test_an_attempt_that_was_replaced_can_neither_renew_nor_release(ledger: Ledger):
    one = ask(ledger, 0)
    old = ledger.claim(one)
    new = ledger.claim(one)
    assert old is not None
    assert new is not None
    assert (new.host, new.host_bytes, new.millicpus, new.devices) == ("local", 4 * GIB, 1000, [])
    assert not ledger.renew(old, running=True)
    assert not ledger.finish(old, Outcome.SUCCESS)
    assert ledger.renew(new, running=True)
    assert ledger.finish(new, Outcome.SUCCESS)


def test_what_is_released_on_a_host_makes_no_gpu_cycle_due(ledger: Ledger, database: str):
    one = ask(ledger, 0)
    query(database, "UPDATE tower SET dirty = false, host_dirty = false")
    end(ledger, one)
    assert query(database, "SELECT dirty, host_dirty FROM tower") == [(False, True)]


def test_old_admissions_that_decide_who_is_starved_are_kept_for_both_kinds(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    from tarmac.ledger import ledger as module

    monkeypatch.setattr(module, "KEEP_ADMISSIONS", 3)
    tower = World(device("GPU-a")).tower(ledger)
    for number in range(STARVED_AFTER + 5):
        end(ledger, ask(ledger, f"cpu-{number}"))
    for number in range(STARVED_AFTER + 5):
        ledger.enqueue(key(f"gpu-{number}"), entry(1))
        tower.run_cycle()
    ledger.prune()
    kept = dict(query(database, "SELECT on_host, count(*) FROM admission GROUP BY on_host"))
    assert kept == {True: STARVED_AFTER, False: STARVED_AFTER}


def test_a_queued_session_is_explained_with_the_ledger_s_own_numbers(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    from tarmac.base.settings import settings
    from tarmac.checks import parts
    from tarmac.cli.explain import Known, client_command, explanation

    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    for number in range(4):
        ask(ledger, number)
    place = parts.place("run-3")
    assert place["ledger"] == "queued"
    found = explanation(Known({"dag_run_id": "run-3", "state": "running"}, [], place), (), client_command)
    assert (found.state, "it needs 1 core and 4.0 GiB of memory: local has 0 of 3 cores" in found.why[0]) == (
        "queued",
        True,
    )
    assert "`tarmac hosts`" in found.todo[0]
    assert parts.place("run-0")["hosts"] == [{"name": "local", "reserved_bytes": 4 * GIB, "millicpus": 1000}]
    assert [row["run_id"] for row in parts.hosts()["reservations"]] == ["run-0", "run-1", "run-2"]
