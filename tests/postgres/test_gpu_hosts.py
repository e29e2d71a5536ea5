"""GPU sessions on several hosts: what each told of its devices last, in a real ledger."""

from __future__ import annotations

import json

import pytest

from support.fleet import World, cpu_entry, device, entry, key, process, query, reserved, tell
from tarmac.admission.estimate import Outcome
from tarmac.admission.placement import HostNeed
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.ledger.database import migrate
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.ledger.statements import CANDIDATES_AT_MOST
from tarmac.scheduler.board import show, show_hosts
from tarmac.scheduler.cycle import Tower
from tarmac.scheduler.host_cycle import run_host_cycle

FAR, OTHER = "gpu2", "gpu3"
FREE = device("GPU-z")


def add(ledger: Ledger, name: str) -> None:
    assert ledger.add_host(name, Connection(f"ssh://a@{name}", "k", name), [14 * GIB, 3000, 12 * GIB, 3000])


@pytest.fixture
def tower(ledger: Ledger) -> Tower:
    """This machine has one device, and knows two others."""
    ledger.put_host("local", 14 * GIB, 3000, 12 * GIB, 3000)
    add(ledger, FAR)
    add(ledger, OTHER)
    return World(device("GPU-a")).tower(ledger)


def where(database: str, one: SessionKey) -> list[tuple[str, str]]:
    """The host and the devices of a session, as its reservations have them."""
    found = query(
        database,
        "SELECT device.host, uuid FROM reservation JOIN device ON uuid = device_uuid WHERE run_id = %s ORDER BY uuid",
        (one.run_id,),
    )
    return [(str(host), str(uuid)) for host, uuid in found]


def age(database: str, seconds: int) -> None:
    query(database, f"UPDATE snapshot SET taken_at = clock_timestamp() - interval '{seconds} seconds'")


def why(ledger: Ledger, one: SessionKey) -> str:
    place = ledger.place_in_queue(one)
    assert place is not None
    return str(place.why)


def test_sessions_spread_over_this_machine_and_another_one(database: str, ledger: Ledger, tower: Tower):
    tell(ledger, FAR, FREE)
    for number in range(3):
        ledger.enqueue(key(number), entry(70, host=HostNeed(4 * GIB, 0)))
    assert tower.run_cycle() == [key(0), key(1)]
    assert where(database, key(0)) == [("local", "GPU-a")], "equal devices: this machine has the data already"
    assert where(database, key(1)) == [(FAR, "GPU-z")]
    held = ledger.reservation(key(1))
    assert held is not None
    assert (held.host, held.host_bytes) == (FAR, 4 * GIB)
    assert [(host.name, host.beside_bytes) for host in ledger.hosts()] == [
        (FAR, 4 * GIB), (OTHER, 0), ("local", 4 * GIB),
    ]  # fmt: skip
    assert "GPU-a on local has 9.0 GiB free of 79.0 GiB" in why(ledger, key(2))
    assert "GPU-z on gpu2 has 9.0 GiB free of 79.0 GiB" in why(ledger, key(2))
    assert ledger.finish(held, Outcome.SUCCESS)
    assert tower.run_cycle() == [key(2)]
    assert where(database, key(2)) == [(FAR, "GPU-z")]


def test_what_others_use_there_counts_and_what_a_session_uses_within_its_reservation_does_not(
    database: str, ledger: Ledger, tower: Tower
):
    container, stranger = "c" * 64, "d" * 64
    tell(ledger, FAR, FREE)
    ledger.enqueue(key(0), entry(30, host=HostNeed(0, 0, FAR)))
    assert tower.run_cycle() == [key(0)]
    busy = device("GPU-z", used=40 * GIB, processes=(process(25 * GIB, container), process(15 * GIB, stranger)))
    tell(ledger, FAR, busy, sessions={container: key(0)})
    tower.run_cycle()
    (row,) = [row for row in ledger.devices() if row.uuid == "GPU-z"]
    assert (row.reserved_bytes, row.external_bytes) == (30 * GIB, 15 * GIB)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("UPDATE snapshot SET taken_at = clock_timestamp() - interval '11 seconds'", "tells nothing of its GPUs"),
        ("DELETE FROM snapshot", "tells nothing of its GPUs"),
        ("UPDATE host SET trouble = 'cut off' WHERE name = 'gpu2'", "does not answer"),
        ("UPDATE host SET draining = true WHERE name = 'gpu2'", "is drained"),
        ("UPDATE snapshot SET body = '[\"of another version\", {}]'", ""),
    ],
    ids=["stale", "none", "silent", "drained", "of another version"],
)
def test_a_host_that_tells_nothing_gives_no_device_and_keeps_what_is_held(
    database: str, ledger: Ledger, tower: Tower, harm: str, reason: str
):
    tell(ledger, FAR, FREE)
    ledger.enqueue(key(0), entry(10, host=HostNeed(0, 0, FAR)))
    assert tower.run_cycle() == [key(0)]
    query(database, harm)
    ledger.enqueue(key(1), entry(10, host=HostNeed(0, 0, FAR)))
    ledger.enqueue(key(2), entry(10))
    found = tower.run_cycle()
    assert key(2) in found, "this machine's device is not touched by it"
    if reason:
        assert found == [key(2)]
        assert why(ledger, key(1)) == f"needs 10.0 GiB; not to be used now are GPU-z on gpu2: its host {reason}"
        assert f"  not usable: its host {reason}" in show(ledger)
    assert reserved(database)["GPU-z"] >= 10 * GIB
    query(database, "UPDATE host SET trouble = '', draining = false")
    tell(ledger, FAR, FREE)
    if reason:
        assert tower.run_cycle() == [key(1)]


def test_a_drained_machine_of_the_stack_takes_no_gpu_session(database: str, ledger: Ledger, tower: Tower):
    tower.run_cycle()
    query(database, "UPDATE tower SET dirty = false")
    assert ledger.drain_host("local", True)
    ledger.enqueue(key(0), entry(10))
    assert tower.run_cycle() == []
    assert why(ledger, key(0)) == "needs 10.0 GiB; not to be used now are GPU-a: its host is drained"
    assert ledger.drain_host("local", False)
    assert query(database, "SELECT dirty FROM tower") == [(True,)], "those that wait run a cycle"
    assert tower.run_cycle() == [key(0)]


def test_all_devices_of_a_session_are_on_one_host(database: str, ledger: Ledger, tower: Tower):
    tell(ledger, FAR, FREE)
    ledger.enqueue(key("two"), entry(10, 2))
    assert tower.run_cycle() == []
    assert why(ledger, key("two")) == "needs 10.0 GiB on each of 2 devices, and no host has more than 1"
    tell(ledger, OTHER, device("GPU-m"), device("GPU-n"))
    assert tower.run_cycle() == [key("two")]
    assert where(database, key("two")) == [(OTHER, "GPU-m"), (OTHER, "GPU-n")]


@pytest.mark.parametrize("gib", ["10", "NULL"], ids=["of bytes", "of whole devices"])
def test_many_that_ask_for_a_full_host_starve_none_behind_them(database: str, ledger: Ledger, tower: Tower, gib: str):
    from support.fleet import fill

    tell(ledger, FAR, FREE)
    ledger.enqueue(key("first"), entry(79, host=HostNeed(0, 0, FAR)))
    assert tower.run_cycle() == [key("first")]
    fill(database, 2 * CANDIDATES_AT_MOST, gib)
    query(database, "UPDATE waiting SET wanted_host = %s", (FAR,))
    ledger.enqueue(key("small"), entry(9))
    assert tower.run_cycle() == [key("small")]
    assert where(database, key("small")) == [("local", "GPU-a")]


def test_a_cpu_session_goes_to_the_host_that_it_asks_for_and_many_such_starve_none(
    database: str, ledger: Ledger, tower: Tower
):
    for number in range(CANDIDATES_AT_MOST + 4):
        found = cpu_entry(4, 1)
        need = type(found.need)(None, 0, host=HostNeed(4 * GIB, 1000, FAR))
        ledger.enqueue(key(number), type(found)(**{**vars(found), "need": need}))
    ledger.enqueue(key("any"), cpu_entry(4, 1))
    admitted = run_host_cycle(ledger)
    assert admitted[:3] == [key(0), key(1), key(2)]
    assert key("any") in admitted
    assert len(admitted) == 4
    assert {one.host for one in ledger.reservations() if one.key != key("any")} == {FAR}
    assert why(ledger, key(3)).startswith("needs 1 core and 4.0 GiB of memory on gpu2: gpu2 has 0 of 3 cores")


def test_the_first_claim_of_a_device_counts_until_its_card_has_moved(database: str, ledger: Ledger, tower: Tower):
    tell(ledger, FAR, FREE)
    tower.run_cycle()

    def host_of_z() -> str:
        (found,) = [row.host for row in ledger.devices() if row.uuid == "GPU-z"]
        return found

    tell(ledger, OTHER, FREE, device("GPU-a", total=800 * GIB))
    tower.run_cycle()
    assert host_of_z() == FAR
    assert query(database, "SELECT host, total_bytes FROM device WHERE uuid = 'GPU-a'") == [("local", 80 * GIB)]
    tell(ledger, FAR)
    tower.run_cycle()
    tower.run_cycle()
    assert host_of_z() == OTHER


def test_a_device_that_is_lost_there_goes_into_quarantine(database: str, ledger: Ledger, tower: Tower):
    from tarmac.devices.snapshot import Health

    tell(ledger, FAR, device("GPU-z", health=Health.LOST, fault="the GPU has fallen off the bus"))
    tower.run_cycle()
    assert query(database, "SELECT reason FROM quarantine") == [("the GPU has fallen off the bus",)]


def test_a_removed_host_takes_its_devices_with_it(database: str, ledger: Ledger, tower: Tower):
    tell(ledger, FAR, FREE)
    ledger.enqueue(key(0), entry(10, host=HostNeed(GIB, 0, FAR)))
    assert tower.run_cycle() == [key(0)]
    assert not ledger.remove_host(FAR), "a session holds a device of it"
    assert ledger.end_session(key(0), "over")
    ledger.quarantine("GPU-z", "broken")
    assert ledger.remove_host(FAR)
    assert [row.uuid for row in ledger.devices()] == ["GPU-a"]
    ledger.enqueue(key(1), entry(10, host=HostNeed(0, 0, FAR)))
    assert tower.run_cycle() == []
    assert why(ledger, key(1)) == "needs 10.0 GiB, and no GPU can be read on host gpu2 at the moment"


def test_people_see_the_host_of_each_device(database: str, ledger: Ledger, tower: Tower):
    tell(ledger, FAR, FREE)
    tower.run_cycle()
    assert any(line.startswith("GPU-z  H100 on gpu2: 79.0 GiB free") for line in show(ledger))
    lines = show_hosts(ledger)
    assert "  GPU-z  H100: 79.0 GiB free of 79.0 GiB" in lines
    assert any("60.0 GiB of 64.0 GiB of memory not in use, load 0.5, 300.0 GiB of disk free" in one for one in lines)


def test_an_upgrade_keeps_what_is_held_and_what_waits(empty_database: str):
    migrate(empty_database, 10)
    query(
        empty_database,
        """
        INSERT INTO device (uuid, name, total_bytes, capacity_bytes) VALUES ('GPU-a', 'H100', 85899345920, 84825604096);
        INSERT INTO host (name, total_bytes, total_millicpus, capacity_bytes, capacity_millicpus)
            VALUES ('local', 100, 1000, 100, 1000);
        INSERT INTO arrival (dag_id, run_id) VALUES ('nlp_model_training', 'run-0'), ('nlp_model_training', 'run-1');
        INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at, sequence,
            priority, rule, data_bytes, signature)
            VALUES ('nlp_model_training', 'run-0', 'GPU-a', 75161927680, false, 1, clock_timestamp(),
            clock_timestamp(), 1, 0, 'request', 0, '');
        INSERT INTO waiting (dag_id, run_id, task_id, sequence, memory_bytes, device_count, policy, rule, estimate,
            data_bytes, signature, deadline_at) VALUES ('nlp_model_training', 'run-1', 'gpu_preflight_configuration', 2,
            10737418240, 1, 'packed', 'request', '', 0, '', clock_timestamp() + interval '1 hour');
        """,
    )
    old = json.dumps([[["GPU-a", 79 * GIB, 70 * GIB, 0, ""]], [], {}])
    query(empty_database, "UPDATE tower SET view = %s", (old,))
    migrate(empty_database)
    with Ledger(empty_database) as ledger:
        held = ledger.claim(key(0))
        assert held is not None
        assert (held.host, held.devices) == ("", ["GPU-a"])
        assert "GPU-a has 9.0 GiB free of 79.0 GiB" in why(ledger, key(1)), "a stored snapshot of before is read"
        tower = World(device("GPU-a")).tower(ledger)
        assert tower.run_cycle() == []
        assert ledger.finish(held, Outcome.SUCCESS)
        assert tower.run_cycle() == [key(1)]
