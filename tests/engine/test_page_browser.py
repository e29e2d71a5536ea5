"""The Tarmac page in a real browser, on a real ledger: readable by all, by keyboard, and with many sessions at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from fakes import scene
from fakes.web import Fakes
from fakes.weights import FILES, tar
from support.browsing import NETWORK_CHANGED, open_at
from support.fleet import DAG_ID, World, device, entry
from support.page_server import FLAGS, PAGES, fill_with_scene, served
from support.stack import REPO
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.request import datasets

GOOD_ENOUGH = {"minor", "moderate"}
LONGEST = 120_000

pytestmark = pytest.mark.xdist_group("page")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=LONGEST)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a window of its own; no script of a page fails, and a page asks nothing of other machines."""
    problems: list[str] = []

    def told(message: ConsoleMessage) -> None:
        # What other tests do to the machine's networks is no fault of a page.
        if message.type == "error" and NETWORK_CHANGED not in message.text:
            problems.append(message.text)

    def open_page(address: str) -> Page:
        page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
        page.set_default_timeout(LONGEST)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", told)
        page.on("request", lambda asked: problems.append(asked.url) if "localhost" not in asked.url else None)
        open_at(page, address)
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert problems == []


@pytest.fixture
def ground(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty ledger and an empty store for a page that is served."""
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    monkeypatch.setenv("TARMAC_STORE", f"file://{tmp_path}/store")
    settings.cache_clear()
    yield
    settings.cache_clear()


def findings(page: Page, *rules: str) -> list[str]:
    """What axe calls serious or critical on a page, a line each; by some of its rules, else by all."""
    options = {"runOnly": list(rules)} if rules else None
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in Axe().run(page, options=options).response["violations"]
        if rule["impact"] not in GOOD_ENOUGH
        for node in rule["nodes"]
    ]


def test_each_page_can_be_read_by_all_in_light_and_dark_and_on_a_phone(ground: None, opened: Callable[..., Page]):
    found: dict[str, object] = {}
    with served("user") as url:
        for name, path in PAGES.items():
            page = opened(url + path)
            page.wait_for_load_state("networkidle")
            found[name] = findings(page)
            page.emulate_media(color_scheme="dark")
            found[f"{name}, dark"] = findings(page, "color-contrast")
            page.set_viewport_size({"width": 390, "height": 844})
            found[f"{name}, on a phone"] = [] if page.evaluate("document.body.scrollWidth") <= 390 else ["too wide"]
            page.context.close()
    assert {name: left for name, left in found.items() if left} == {}


def crowd(ledger: Ledger, fakes: Fakes) -> None:
    """16 devices, of which each trains a session, and 184 sessions that wait."""
    tower = World(*(device(f"GPU-{number:04}", index=number) for number in range(16))).tower(ledger)
    scene.fill_airflow(fakes)
    fakes.airflow_api.runs.clear()
    for number in range(200):
        run_id = f"run-{number:03}"
        fakes.airflow_api.add(run_id, "running", {"model": "test_model", "name": f"session {number}", "gpu": True})
        ledger.enqueue(SessionKey(DAG_ID, run_id), entry(70))
        if number < 16:
            tower.run_cycle()
            held = ledger.claim(SessionKey(DAG_ID, run_id))
            assert held is not None
            assert ledger.renew(held, running=True, used_bytes=60 * GIB, peak_bytes=60 * GIB)
    tower.run_cycle()


def test_two_hundred_sessions_and_sixteen_devices_are_on_the_page_and_news_of_them_comes_by_itself(
    ground: None, opened: Callable[..., Page], database: str
):
    with served("user", fill=crowd) as url, Ledger(database) as ledger:
        page = opened(url)
        expect(page.get_by_text("16 sessions hold a reservation, 184 in the queue")).to_be_visible()
        expect(page.locator("svg.bar[aria-label*='GiB']")).to_have_count(16)
        expect(page.locator("tr[data-key^='run-']")).to_have_count(200)
        last = page.locator("tr[data-key='run-199']").element_handle()
        assert last is not None
        ledger.withdraw(SessionKey(DAG_ID, "run-150"))
        expect(page.get_by_text("16 sessions hold a reservation, 183 in the queue")).to_be_attached()
        # What has not changed is the element that it was: nothing flickers, and what is selected stays so.
        assert last.evaluate("row => row.isConnected")
        assert findings(page) == []
        page.context.close()


def test_a_page_that_nobody_sees_asks_nothing_and_one_goes_on_when_the_webserver_is_back(
    ground: None, browser: Browser, database: str
):
    see = "seen => { Object.defineProperty(document, 'visibilityState', {value: seen, configurable: true}); "
    see += "document.dispatchEvent(new Event('visibilitychange')); }"
    silent = "The stack does not answer. This page shows what it said last, and asks again."
    with served("user") as url:
        page = browser.new_context().new_page()
        open_at(page, url)
        with page.expect_event("requestfailed", lambda asked: asked.url.endswith("/news/now")):
            page.get_by_role("button", name="Pause updates").click()
        with page.expect_request(f"{url}/news/now"):
            page.get_by_role("button", name="Resume updates").click()
        with page.expect_event("requestfailed", lambda asked: asked.url.endswith("/news/now")):
            page.evaluate(see, "hidden")
        with page.expect_request(f"{url}/news/now"):
            page.evaluate(see, "visible")
        port = int(url.split(":")[2].split("/")[0])
    expect(page.get_by_text(silent)).to_be_visible()
    with served("user", port, fill=lambda *_: None), Ledger(database) as ledger:
        expect(page.get_by_text(silent)).to_be_hidden()
        ledger.enqueue(SessionKey(DAG_ID, "came-later"), entry(70))
        expect(page.locator("tr[data-key='came-later']")).to_be_visible()
        page.context.close()


def test_a_log_shows_its_end_until_a_person_scrolls_away(ground: None, opened: Callable[..., Page]):
    told: list[Fakes] = []

    def fill(ledger: Ledger, fakes: Fakes) -> None:
        fill_with_scene(ledger, fakes)
        fakes.airflow_api.log = [f"step {number}" for number in range(150)]
        told.append(fakes)

    hidden = "log => log.scrollHeight - log.clientHeight - log.scrollTop"
    with served("user", fill=fill) as url:
        page = opened(f"{url}/sessions/ner")
        log = page.locator("pre.log")
        for step in (149, 150):
            expect(log).to_contain_text(f"step {step}\n")
            assert log.evaluate(hidden) < 2
            told[0].airflow_api.log.append(f"step {step + 1}")
        log.evaluate("log => log.scrollTop = 40")
        told[0].airflow_api.log.append("the last step")
        expect(log).to_contain_text("the last step")
        assert log.evaluate("log => log.scrollTop") == 40
        page.context.close()


def test_a_session_without_a_name_fits_on_a_phone(ground: None, opened: Callable[..., Page]):
    run_id = "named_entity_recognition__2026-11-28T20:53:44.179283+00:00"

    def fill(ledger: Ledger, fakes: Fakes) -> None:
        fill_with_scene(ledger, fakes)
        fakes.airflow_api.add(run_id, "running")

    with served("user", fill=fill) as url:
        page = opened(f"{url}/sessions/{run_id}")
        page.set_viewport_size({"width": 390, "height": 844})
        expect(page.get_by_role("heading", level=1)).to_have_text(run_id)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.context.close()


def test_a_keyboard_alone_leads_from_the_page_to_a_session_and_ends_it(ground: None, opened: Callable[..., Page]):
    with served("user") as url:
        page = opened(url)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.keyboard.press("Enter")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('href') || ''").endswith("/sessions/ner"):
                break
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/sessions/ner$"))
        cancel = page.locator("summary", has_text="Cancel")
        cancel.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="End this session")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="End this session")).to_be_focused()
        page.context.close()


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_person_uploads_trains_watches_reads_why_one_waits_and_promotes(
    ground: None, opened: Callable[..., Page], by: str
):
    def use(what: Locator) -> None:
        if by == "mouse":
            what.click()
        else:
            what.focus()
            what.press("Space" if what.get_attribute("type") == "checkbox" else "Enter")

    with served("user") as url:
        page = opened(url)
        use(page.get_by_role("link", name="New session"))
        page.get_by_label("Model").select_option("named_entity_recognition")
        use(page.get_by_role("button", name="Continue"))
        use(page.get_by_text("More", exact=True))
        script = {"name": "mine.py", "mimeType": "text/x-python", "buffer": b"print(1)\n"}
        page.get_by_label("A script of your own").set_input_files(script)  # type: ignore[arg-type]
        expect(page.get_by_label("Script", exact=True)).to_have_value(re.compile(r"^(\w+)/\1\.py$"))

        use(page.get_by_role("link", name="New session"))
        page.get_by_label("Model").select_option("test_model")
        use(page.get_by_role("button", name="Continue"))
        page.get_by_label("A file of your own").set_input_files(str(REPO / "examples" / "tiny.jsonl"))
        expect(page.get_by_text("Stored: 22 lines")).to_be_visible()
        expect(page.locator("[data-facts]").first).to_contain_text("22 lines. Labels in named_entity:")
        use(page.get_by_role("checkbox", name="On a GPU"))
        use(page.get_by_role("button", name="Check and preview"))
        expect(page.get_by_text("The request is good.")).to_be_visible()
        use(page.get_by_role("button", name="Start", exact=True))
        page.wait_for_url(re.compile("/sessions/"))
        expect(page.get_by_role("heading", name="Log")).to_be_visible()

        use(page.get_by_role("link", name="Now"))
        waits = page.get_by_role("row").filter(has_text="all news of 2025")
        expect(waits).to_contain_text("needs 70.0 GiB")
        trains = page.get_by_role("row").filter(has_text="WNUT17, larger batches")
        expect(trains).to_contain_text("61 %")
        use(trains.get_by_role("link"))
        expect(page.locator(".chart").first).to_be_visible()

        open_at(page, f"{url}/sessions/ended")
        use(page.get_by_text("Put into production"))
        page.get_by_label("Why version 5 of news-entities").fill("better on the new labels")
        use(page.get_by_role("button", name="Promote"))
        page.wait_for_url(re.compile(r"/models/news-entities\?done="))
        expect(page.get_by_role("status").filter(has_text="in production now")).to_be_visible()
        expect(page.get_by_role("heading", name="Score of each version")).to_be_visible()
        expect(page.get_by_text("better on the new labels")).to_be_visible()
        page.context.close()


def test_a_folder_of_weights_is_uploaded_and_a_form_gets_room_for_a_fourth_data_set(
    ground: None, opened: Callable[..., Page], tmp_path: Path
):
    folder = tmp_path / "minilm"
    folder.mkdir()
    for name, content in {**FILES, "README.md": b"# left out"}.items():
        (folder / name).write_bytes(content)
    expected = datasets.put(tar(FILES), settings().store_url, ".weights")[0]
    datasets.remove(expected, settings().store_url)
    with served("user") as url:
        page = opened(f"{url}/new?model=named_entity_recognition")
        page.get_by_label("Network").select_option("transformer")
        page.get_by_role("button", name="Show its form").click()
        page.get_by_label("A folder with weights").set_input_files(folder)
        expect(page.get_by_label("Fine-tune")).to_have_value(f"weights:{expected.partition('/')[0]}")
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").unlink()
        page.get_by_label("A folder with weights").set_input_files(folder)
        expect(page.get_by_text("The folder has no tokenizer.json and no vocab.txt")).to_be_visible()
        page.get_by_label("Name", exact=True).first.fill("kept")
        page.get_by_text("More data sets, combined with the first").click()
        page.get_by_role("button", name="One more data set").click()
        expect(page.locator("[data-set]")).to_have_count(4)
        expect(page.get_by_label("Name", exact=True).first).to_have_value("kept")
        expect(page.get_by_label("Fine-tune")).to_have_value(f"weights:{expected.partition('/')[0]}")
        page.context.close()


def test_a_file_that_is_uploaded_is_in_the_list_at_once(ground: None, opened: Callable[..., Page]):
    with served("user") as url:
        page = opened(f"{url}/datasets")
        late = {"name": "late.train.jsonl", "mimeType": "application/json", "buffer": b'{"sentence": "late"}\n'}
        page.get_by_label("A file of your own").set_input_files(late)  # type: ignore[arg-type]
        expect(page.get_by_role("row").filter(has_text="late.train")).to_be_visible()
        page.context.close()


def test_a_table_is_read_in_the_form_when_a_person_has_said_which_column_is_the_label(
    ground: None, opened: Callable[..., Page]
):
    def table(name: str, *rows: str) -> dict[str, Any]:
        return {"name": name, "mimeType": "text/csv", "buffer": "\n".join(["id,review,stars", *rows]).encode()}

    with served("user") as url:
        page = opened(f"{url}/new?model=text_classification")
        page.get_by_label("A file of your own").set_input_files(table("films.csv", "1,Fine,good", "2,Awful,bad"))
        expect(page.get_by_text('write its name into "Column of the label" below')).to_be_visible()
        page.get_by_label("Column of the label").fill("stars")
        page.get_by_label("Column of the label").press("Enter")
        expect(page.get_by_text("films.csv: read as a table (CSV): 2 lines; labels: good 1, bad 1")).to_be_visible()
        expect(page.get_by_label("Train on").first).to_have_value(re.compile(r"^(\w+)/\1\.jsonl$"))
        expect(page.get_by_label("Name", exact=True).first).to_have_value("films")
        page.get_by_label("Use it").select_option("eval")
        page.get_by_label("A file of your own").set_input_files(table("new.csv", "3,So,so", "4,Nice,good"))
        expect(page.get_by_text("classes became the numbers 1 'good', 2 'so'")).to_be_visible()
        page.get_by_label("Classes in order").fill("so, good, bad")
        page.get_by_label("Classes in order").press("Enter")
        expect(page.get_by_text("classes became the numbers 0 'so', 1 'good'")).to_be_visible()
        expect(page.get_by_label("Score on").first).to_have_value(re.compile(r"^(\w+)/\1\.jsonl$"))
        page.get_by_role("button", name="Check and preview").click()
        expect(page.get_by_text("The request is good.")).to_be_visible()
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_focused()
        page.context.close()


def test_what_a_person_has_opened_stays_open_when_a_part_above_it_comes_or_goes(
    ground: None, opened: Callable[..., Page]
):
    with served("user") as url:
        page = opened(f"{url}/sessions/ner")
        page.locator("summary", has_text="Cancel").click()
        button = page.get_by_role("button", name="End this session")
        expect(button).to_be_visible()
        page.evaluate(
            """() => {
              const part = document.querySelector("[data-live]");
              const fresh = part.cloneNode(true);
              const card = document.createElement("div");
              card.className = "card";
              fresh.insertBefore(card, fresh.querySelector(".actions"));
              const without = part.cloneNode(true);
              for (const one of [fresh, without])
                for (const each of one.querySelectorAll("details")) each.open = false;
              morph(part, fresh);
              morph(part, without);
            }"""
        )
        expect(button).to_be_visible()
        page.context.close()
