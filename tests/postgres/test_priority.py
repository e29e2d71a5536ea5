"""A person gives a session that waits another priority: who goes next, what lasts, who may, what the page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi.testclient import TestClient

from fakes.web import Fakes
from support.fleet import World, cpu_entry, device, entry, key, query
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.web.app import create_app
from tarmac.web.mounted import beside
from tarmac.web.page.app import create_page


def admitted(ledger: Ledger) -> list[str]:
    return [one.key.run_id for one in ledger.reservations()]


def test_the_session_with_the_higher_priority_is_admitted_first(ledger: Ledger):
    tower = World(device()).tower(ledger)
    for number in (1, 2, 3):
        ledger.enqueue(key(number), entry(70))
    assert ledger.prioritise(key(3), 10)
    tower.run_cycle()
    assert admitted(ledger) == ["run-3"]
    assert ledger.priority(key(3)) is None
    assert not ledger.prioritise(key(3), 20), "it waits no longer"
    assert not ledger.prioritise(key(99), 1)


def test_cpu_sessions_too(ledger: Ledger):
    ledger.put_host("local", 8 * GIB, 4000, 8 * GIB, 4000)
    for number in (1, 2):
        ledger.enqueue(key(number), cpu_entry(6))
    assert ledger.prioritise(key(1), -5)
    run_host_cycle(ledger)
    assert admitted(ledger) == ["run-2"]


def test_it_lasts_when_the_session_renews_its_entry_and_when_it_waits_again(ledger: Ledger, database: str):
    ledger.enqueue(key(1), entry(70, priority=3))
    assert ledger.priority(key(1)) == 3
    assert ledger.prioritise(key(1), 7)
    ledger.enqueue(key(1), entry(70, priority=3))
    assert ledger.priority(key(1)) == 7
    query(database, "DELETE FROM waiting")  # as an admission does; then its training failed, and is tried again
    ledger.enqueue(key(1), entry(70, priority=3))
    assert ledger.priority(key(1)) == 7
    ledger.withdraw(key(1))
    ledger.enqueue(key(1), entry(70, priority=3))
    assert ledger.priority(key(1)) == 3, "a session that is over is forgotten"


def test_a_change_makes_a_cycle_due_and_nothing_else_does(ledger: Ledger, database: str):
    ledger.enqueue(key(1), entry(70))
    query(database, "UPDATE tower SET dirty = false, host_dirty = false")
    ledger.prioritise(key(2), 5)
    assert query(database, "SELECT dirty, host_dirty FROM tower") == [(False, False)]
    ledger.prioritise(key(1), 5)
    assert query(database, "SELECT dirty, host_dirty FROM tower") == [(True, True)]


@pytest.fixture
def browser(ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    fakes = Fakes()
    fakes.real_place = True
    for number in (1, 2):
        fakes.airflow_api.add(f"run-{number}", "running")
        ledger.enqueue(key(number), entry(70))
    api = create_app(fakes)
    with TestClient(beside(api, create_page(api)), follow_redirects=False) as found:
        yield found


def see(browser: TestClient, who: str) -> str:
    return browser.get("/sessions/run-2", headers={"Cookie": f"_token={who}"}).text


def press(browser: TestClient, priority: str, who: str = "user") -> httpx.Response:
    form = re.search(r'action="(/sessions/run-2/priority)".*?name="proof" value="(\w+)"', see(browser, "user"), re.S)
    assert form
    fields = {"proof": form[2], "priority": priority}
    return browser.post(form[1], data=fields, headers={"Cookie": f"_token={who}"})


def test_a_user_changes_it_on_the_page_and_a_viewer_does_not(browser: TestClient, ledger: Ledger):
    assert "Change priority" not in see(browser, "viewer")
    assert press(browser, "9", "viewer").status_code == 403
    assert ledger.priority(key(2)) == 0
    answer = press(browser, "9")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions/run-2?done=prioritised")
    assert ledger.priority(key(2)) == 9
    assert 'value="9"' in see(browser, "user")
    for wrong in ("101", "-101", "", "many", "1.5", "9" * 400):
        refused = press(browser, wrong)
        assert refused.status_code in (400, 422), wrong
        assert "priority" in refused.text
    assert ledger.priority(key(2)) == 9


def test_the_api_says_where_the_session_stands_then_and_refuses_one_that_does_not_wait(
    browser: TestClient, ledger: Ledger
):
    def send(run_id: str, body: object) -> httpx.Response:
        headers = {"Authorization": "Bearer user"}
        return browser.post(f"/api/v1/sessions/{run_id}/priority", json=body, headers=headers)

    found = send("run-2", {"priority": 5}).json()
    assert (found["priority"], found["waits"]["ahead"], found["waits"]["priority"]) == (5, 0, 5)
    ledger.withdraw(key(2))
    late = send("run-2", {"priority": 5})
    assert late.status_code == 409
    assert "is not queued: only one that waits has a priority to change" in late.json()["detail"]
    assert send("none", {"priority": 5}).status_code == 404
    assert send("run-1", {"priority": "5"}).status_code in (400, 422)
    assert send("run-1", {"priority": 5, "more": 1}).status_code in (400, 422)
