"""Machines on demand on a real ledger: started for a session, made a host, ended when idle, known after any crash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from support.fleet import TOTAL, World, cpu_entry, device, entry, key, query, tell
from tarmac.admission.estimate import Outcome
from tarmac.admission.machines import State
from tarmac.base.errors import HostError, ProviderError
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.checks import adding
from tarmac.hosts.kinds import Kind, Kinds, Listed, Provider, Size
from tarmac.hosts.providers import Order
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.reaper import machines
from tarmac.reaper.machines import KindKeeper
from tarmac.scheduler import machine_board
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.web.now import overview

URL = "ssh://a@10.0.0.7"
KIND = Kind("gpu", Provider.SCRIPT, "gpu", "H100", Size(1, 78 * GIB, 60 * GIB, 8000), 2, 600, 6 * 3600, 900, None, 2.5)
# As much later as idle machines are ended, and as much as one that failed is passed over.
LATER = "UPDATE machine SET idle_at = idle_at - interval '10 minutes'"


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Memory:
    """A provider in memory."""

    there: dict[str, Listed] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    offer: str = ""
    fails: str = ""

    def offers(self) -> str:
        self.calls.append("offers")
        return self.offer

    def create(self, order: Order) -> Listed:
        self.calls.append(f"create {order.name}")
        if self.fails == "crash":
            raise Crash
        self.there.setdefault(order.name, Listed(f"i-{order.name}", order.name, URL))
        if self.fails == "no answer":
            raise ProviderError("no answer")
        return self.there[order.name]

    def listed(self) -> tuple[Listed, ...]:
        if self.fails == "list":
            raise ProviderError("the cloud is closed")
        return tuple(self.there.values())

    def terminate(self, name: str, machine_id: str) -> None:
        self.calls.append(f"terminate {name} {machine_id}")
        self.there.pop(name, None)


@pytest.fixture
def cloud() -> Memory:
    return Memory()


@pytest.fixture(autouse=True)
def _surroundings(ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stack's own machine offers little; a machine of a kind becomes a host when it is added."""
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    for name in ("AGAIN_SECONDS", "LIST_SECONDS", "IDLE_LIST_SECONDS"):
        monkeypatch.setattr(machines, name, 0.0)
    monkeypatch.setattr(adding, "key_line", lambda: {"line": "ssh-ed25519 AAAA tarmac"})
    monkeypatch.setattr(adding, "add", lambda *said: add(ledger, *said))
    ledger.put_host("local", 8 * GIB, 2000, 6 * GIB, 2000)
    yield
    settings.cache_clear()


def add(ledger: Ledger, name: str, url: str, pinned: str) -> dict[str, Any]:
    if not pinned:
        return {"fingerprint": "SHA256:a", "says": []}
    ledger.add_host(name, Connection(url, "k", name), [64 * GIB, 8000, 60 * GIB, 8000])
    return {"fingerprint": pinned, "says": ["it can be reached"]}


def keeper(ledger: Ledger, cloud: Memory, kind: Kind = KIND, limit: float = 50) -> KindKeeper:
    ledger.put_kinds([kind])
    return KindKeeper(kind, Kinds("tarmac-tests", limit, "EUR", (kind,)), ledger, cloud, settings())


def waits(ledger: Ledger, database: str, name: str = "one", **fields: Any) -> None:
    """Queue a CPU session that fits on a machine of the kind alone, and has waited for a while."""
    ledger.enqueue(key(name), cpu_entry(50, 4, **fields))
    run_host_cycle(ledger, key(name))
    query(database, "UPDATE waiting SET enqueued_at = enqueued_at - interval '1 minute'")


def states(ledger: Ledger) -> dict[str, State]:
    return {one.name: one.state for one in ledger.machines()}


def rounds(one: KindKeeper, count: int) -> None:
    for _ in range(count):
        one.round()


def reason(ledger: Ledger, name: str = "one") -> str:
    place = ledger.place_in_queue(key(name))
    assert place is not None
    return f"{place.why.reason}: {place.why}"


def test_a_session_that_fits_nowhere_has_a_machine_started_trains_there_and_the_idle_machine_goes(
    ledger: Ledger, database: str, cloud: Memory
):
    one = keeper(ledger, cloud)
    one.round()
    waits(ledger, database)
    said = reason(ledger)
    assert said.startswith("WAITING_FOR_MACHINE: needs 4 cores and 50.0 GiB of memory, and local offers")
    assert said.endswith("; it fits a machine of kind gpu, which is started next")
    rounds(one, 2)
    assert cloud.calls == ["offers", "create gpu-1"]
    assert "; machine gpu-1 is starting, 0 s" in reason(ledger)
    assert [row["reason"] for row in ledger.queue(on_host=True)][0].endswith("machine gpu-1 is starting, 0 s")
    rounds(one, 2)
    assert states(ledger) == {"gpu-1": State.READY}
    run_host_cycle(ledger, key("one"))
    held = ledger.claim(key("one"))
    assert held is not None
    assert held.host == "gpu-1"
    assert ledger.renew(held, running=True)
    query(database, LATER)
    one.round()
    assert states(ledger) == {"gpu-1": State.READY}, "a session holds something of it"
    query(database, "UPDATE reservation SET running_at = running_at - interval '2 hours'")
    assert ledger.finish(held, Outcome.SUCCESS, peak_bytes=1)
    one.round()
    assert cloud.calls[2:] == []
    query(database, LATER)
    one.round()
    assert cloud.calls[2:] == ["terminate gpu-1 i-gpu-1"]
    assert [host.name for host in ledger.hosts()] == ["local"]
    one.round()
    assert states(ledger) == {"gpu-1": State.ENDED}
    found = machine_board.facts(ledger, Kinds("tarmac-tests", 50, "EUR", (KIND,)))
    assert (found["machines"], found["sessions"]) == ([], [{"run_id": "run-one", "money": pytest.approx(5, abs=0.01)}])
    empty: dict[str, list[Any]] = {"devices": [], "hosts": [], "reservations": [], "queue": []}
    shown = overview({"now": ledger.now(), "gpus": empty, "hosts": {**empty, "machines": found}}, []).machines
    assert shown is not None
    assert [(one.session, round(one.money)) for one in shown.sessions] == [("run-one", 5)]
    assert machine_board.lines(found)[1:] == [
        "Machines on demand: 0.00 EUR of at most 50.00 EUR spent today (UTC).",
        "kind gpu: 2.50 EUR an hour, at most 2",
        "Sessions on them since yesterday: run-one 5.00 EUR",
    ]
    rounds(one, 3)
    assert cloud.calls[3:] == [], "nothing is done where nothing is needed"


def test_a_gpu_session_waits_for_a_machine_and_its_devices_count_before_they_are_known(
    ledger: Ledger, database: str, cloud: Memory
):
    one = keeper(ledger, cloud)
    tower = World(device(total=20 * GIB)).tower(ledger)
    for name in ("a", "b"):
        ledger.enqueue(key(name), entry(40))
    tower.run_cycle(key("a"))
    query(database, "UPDATE waiting SET enqueued_at = enqueued_at - interval '1 minute'")
    rounds(one, 6)
    assert states(ledger) == {"gpu-1": State.READY, "gpu-2": State.READY}
    rounds(one, 2)
    assert len(states(ledger)) == 2, "those that have not told of their GPUs yet have room"
    tell(ledger, "gpu-1", device("GPU-far", total=TOTAL))
    assert tower.run_cycle(key("a")) == [key("a")]
    held = ledger.claim(key("a"))
    assert held is not None
    assert held.devices == ["GPU-far"]


@pytest.mark.parametrize("fails", ["crash", "no answer"])
def test_a_machine_is_known_whatever_happens_after_it_was_intended(
    ledger: Ledger, database: str, cloud: Memory, fails: str
):
    waits(ledger, database)
    cloud.fails = fails
    one = keeper(ledger, cloud)
    one.round()
    if fails == "crash":
        with pytest.raises(Crash):
            one.round()
    else:
        one.round()
    assert states(ledger) == {"gpu-1": State.STARTING}
    cloud.fails = ""
    rounds(keeper(ledger, cloud), 4)
    assert states(ledger) == {"gpu-1": State.READY}
    assert list(cloud.there) == ["gpu-1"]


def test_one_that_does_not_become_a_host_is_ended_and_no_other_follows_at_once(
    ledger: Ledger, database: str, cloud: Memory, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: str) -> None:
        raise HostError("10.0.0.7 does not answer on port 22 as an SSH server.")

    monkeypatch.setattr(adding, "add", refuse)
    waits(ledger, database)
    one = keeper(ledger, cloud)
    rounds(one, 3)
    assert [row.trouble for row in ledger.machines()] == ["10.0.0.7 does not answer on port 22 as an SSH server."]
    query(database, "UPDATE machine SET intended_at = intended_at - interval '15 minutes'")
    rounds(one, 3)
    assert states(ledger) == {"gpu-1": State.ENDED}
    assert cloud.there == {}
    assert "none is started: gpu-1 did not become a host, so none is started for 15 min 0 s: 10.0.0.7" in reason(ledger)
    query(database, "UPDATE machine SET ended_at = ended_at - interval '15 minutes'")
    rounds(one, 2)
    assert states(ledger)["gpu-2"] is State.STARTING


def test_what_is_not_known_is_terminated_and_meanwhile_none_is_started(ledger: Ledger, database: str, cloud: Memory):
    cloud.there = {name: Listed(f"i-{name}", name) for name in ("gpu-7", "older-kind-3")}
    waits(ledger, database)
    one = keeper(ledger, cloud)
    one.round()
    assert sorted(cloud.calls) == ["terminate gpu-7 i-gpu-7", "terminate older-kind-3 i-older-kind-3"]
    assert states(ledger) == {}
    rounds(one, 2)
    assert states(ledger) == {"gpu-1": State.STARTING}


def test_limits_of_number_and_money_and_a_provider_that_refuses_are_said(ledger: Ledger, database: str, cloud: Memory):
    waits(ledger, database)
    # It may live for six hours, 15 EUR: at whatever time of day this runs, one of two days has more than seven of them.
    rounds(keeper(ledger, cloud, limit=7), 2)
    assert cloud.calls == []
    promised = r"0\.00 EUR of at most 7\.00 EUR are spent on or promised to machines (today|tomorrow) \(UTC\)"
    assert re.search(rf"none is started: {promised}$", reason(ledger))
    cloud.offer = "its provider has none now: sold out"
    rounds(keeper(ledger, cloud), 3)
    assert cloud.calls == ["offers"]
    assert reason(ledger).endswith("and none is started: its provider has none now: sold out")
    cloud.fails = "list"
    rounds(keeper(ledger, cloud), 2)
    assert reason(ledger).endswith("and none is started: the cloud is closed")
    for name in ("b", "c", "d"):
        waits(ledger, database, name)
    cloud.fails = cloud.offer = ""
    rounds(keeper(ledger, cloud), 6)
    assert list(cloud.there) == ["gpu-1", "gpu-2"]


def test_a_machine_that_vanished_is_lost_at_once_and_its_session_may_train_elsewhere(
    ledger: Ledger, database: str, cloud: Memory
):
    waits(ledger, database)
    one = keeper(ledger, cloud)
    rounds(one, 4)
    run_host_cycle(ledger, key("one"))
    cloud.there.clear()
    rounds(one, 2)
    assert states(ledger) == {"gpu-1": State.ENDED}
    host = ledger.host("gpu-1")
    assert host is not None
    assert host.silent_seconds >= settings().host_lost_seconds
    assert (host.closed, host.trouble) == ("is drained", "its machine has ended")
    ledger.end_session(key("one"), "lost")
    one.round()
    assert ledger.host("gpu-1") is None


def test_a_machine_that_has_less_than_declared_is_not_started_again_for_what_does_not_fit(
    ledger: Ledger, database: str, cloud: Memory, monkeypatch: pytest.MonkeyPatch
):
    large = replace(KIND, size=replace(KIND.size, memory_bytes=100 * GIB))
    ledger.enqueue(key("one"), cpu_entry(80, 4))
    run_host_cycle(ledger, key("one"))
    query(database, "UPDATE waiting SET enqueued_at = enqueued_at - interval '1 minute'")
    one = keeper(ledger, cloud, large)
    rounds(one, 6)
    assert list(states(ledger)) == ["gpu-1"]
    assert reason(ledger).startswith("EXCEEDS_HOST: ")
    ledger.end_session(key("one"), "never fits")
    assert ledger.kind_sizes()["gpu"][0].gpus == 1
    monkeypatch.setattr(machines, "TOLD_SECONDS", -1.0)
    one.round()
    assert ledger.kind_sizes()["gpu"][0].gpus == 0, "it told of none"


def test_two_at_once_plan_one_after_the_other(ledger: Ledger, database: str, cloud: Memory):
    waits(ledger, database)
    first, second = keeper(ledger, cloud), None
    with Ledger(database) as other:
        second = KindKeeper(KIND, Kinds("tarmac-tests", 50, "EUR", (KIND,)), other, cloud, settings())
        for _ in range(4):
            first.round()
            second.round()
    assert list(states(ledger)) == ["gpu-1"]


def test_a_machine_whose_kind_is_not_declared_is_named(ledger: Ledger, database: str, cloud: Memory):
    waits(ledger, database)
    rounds(keeper(ledger, cloud), 4)
    assert [one.name for one in machines.undeclared(ledger.machines(), [])] == ["gpu-1"]
    assert machine_board.facts(ledger, Kinds())["machines"][0]["name"] == "gpu-1"
    ledger.put_kinds([])
    assert ledger.kind_sizes() == {}
