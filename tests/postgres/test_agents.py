"""What another machine's agent tells is stored while it is new; one that is silent, gone or lies is not believed."""

from __future__ import annotations

from typing import Any

import pytest

from support.fleet import device, key, process, query, report
from tarmac.base.errors import TarmacError
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.devices.report import write
from tarmac.devices.told import heard
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.reaper import agents
from tarmac.reaper.agents import Reading

FAR = "gpu2"
CONTAINER = "c" * 64


class Agent:
    """Stands for containers/agent.py: prints what a test says."""

    def __init__(self) -> None:
        self.line, self.made, self.removed = "", 0, 0

    def ensure(self, *_: Any) -> str:
        self.made += 1
        return f"agent {self.made}"

    def last_line(self, *_: Any) -> str:
        return self.line

    def last_words(self, *_: Any) -> str:
        return "Traceback"

    def remove(self, *_: Any) -> None:
        self.removed += 1


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = Agent()
    monkeypatch.setattr(agents, "agent", made)
    monkeypatch.setattr(agents.engine, "running_sessions", lambda *_: {CONTAINER: key(1), "d" * 64: key(2)})
    return made


@pytest.fixture
def reading(ledger: Ledger, told: Agent) -> Reading:
    assert ledger.add_host(FAR, Connection("ssh://a@b", "k", "e"), [14 * GIB, 3000, 12 * GIB, 3000])
    return Reading(FAR, ledger, settings(), lambda: "image")


def step(reading: Reading) -> None:
    far: Any = None
    reading.step(far)


def test_what_is_new_is_stored_with_whose_containers_are_in_it_and_its_devices_are_known(
    reading: Reading, told: Agent, ledger: Ledger
):
    told.line = write(report(device("GPU-z"), number="an old one"))
    step(reading)
    assert ledger.snapshot(FAR) is None, "the first line that is there may be of any time"
    told.line = write(report(device("GPU-z", processes=(process(GIB, CONTAINER),)), number="1"))
    step(reading)
    found = ledger.snapshot(FAR)
    assert found is not None
    told_now = heard(found[0])
    assert told_now is not None
    assert told_now.sessions == {CONTAINER: key(1)}
    assert [(row.uuid, row.host, row.closed) for row in ledger.devices()] == [("GPU-z", FAR, "")]


def test_an_agent_that_repeats_itself_is_not_believed_and_is_replaced(
    reading: Reading, told: Agent, ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    for number in ("0", "1"):
        told.line = write(report(device("GPU-z"), number=number))
        step(reading)
    query(database, "UPDATE snapshot SET taken_at = clock_timestamp() - interval '11 seconds'")
    step(reading)
    assert [row.closed for row in ledger.devices()] == ["its host tells nothing of its GPUs"]
    monkeypatch.setattr(agents, "SILENT_SECONDS", 0.0)
    with pytest.raises(TarmacError, match="its agent tells nothing: Traceback"):
        step(reading)
    assert (told.removed, told.made) == (1, 1)
    step(reading)
    assert told.made == 2


def test_what_cannot_be_read_is_not_stored(reading: Reading, told: Agent, ledger: Ledger):
    told.line = '{"number": "1", "snapshot": "a bomb"}'
    with pytest.raises(TarmacError, match="what its agent tells cannot be read: it is not a report"):
        step(reading)
    assert ledger.snapshot(FAR) is None
