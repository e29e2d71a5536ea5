"""The UI in a real browser: log in, see the graph, trigger from the form, follow the run to success."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from support.browsing import open_at
from support.stack import REPO, Stack
from support.waiting import wait_for

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# By which the run that the form starts is told from those of other tests.
SEED = 471_142
TASKS = [
    "check_request_body", "create_unique_session_path", "retrieve_resources", "determine_cpu_or_gpu",
    "gpu_training_sensor", "gpu_preflight_configuration", "gpu_pool_setup", "train_model_gpu", "train_model_cpu",
    "save_model", "eval_model", "update_model_metadata_registry", "cleanup", "delete_volume", "check_DAG_success",
]  # fmt: skip


# Beside two other processes that test, the UI's editor alone can take longer to load than Playwright's 5 s.
expect.set_options(timeout=120_000)

# One browser for all of them.
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1300}, color_scheme="light")
        page.set_default_timeout(120_000)
        open_at(page, f"http://localhost:{stack.web}/", page.locator("#username"))
        page.fill("#username", "airflow")
        page.fill("#password", "airflow")
        page.click("input[type=submit], button[type=submit]")
        page.wait_for_url(lambda url: "login" not in url)
        yield page
        browser.close()


def shoot(page: Page, name: str) -> None:
    """Save a picture where TARMAC_SCREENSHOTS says; the README's pictures are made so."""
    if folder := os.environ.get("TARMAC_SCREENSHOTS"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=str(Path(folder) / name))


def open_form(stack: Stack, page: Page) -> None:
    """Open the form that starts a session, with its three editors."""
    editors = page.get_by_role("dialog").locator(".view-lines")
    trigger = page.get_by_role("button", name="Trigger").first
    open_at(page, f"http://localhost:{stack.web}/dags/nlp_model_training", editors.nth(2), through=trigger)


def fill_form(page: Page, datasets: str) -> None:
    """Choose test_model and put JSON into the editor of the field Data sets."""
    dialog = page.get_by_role("dialog")
    # Any name may be typed; the catalogue's are suggested.
    dialog.locator("#element_model").fill("test_model")

    def filled() -> bool:
        dialog.get_by_role("textbox", name="Editor content").first.focus()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(datasets)
        # The editor closes brackets by itself; what it added after the text goes again.
        page.keyboard.press("Control+Shift+End")
        page.keyboard.press("Delete")
        # It shows blanks that do not break, and a line that is too long in several.
        shown = dialog.locator(".view-lines").first.inner_text()
        return "".join(shown.split()) == "".join(datasets.split())

    # An editor that still loads its example puts that over what was typed.
    wait_for("the editor to hold the data sets", filled, every=1)


def _leads_to_its_model_in_mlflow_and_back(stack: Stack, page: Page, run_id: str) -> None:
    task = f"dags/nlp_model_training/runs/{run_id}/tasks/update_model_metadata_registry"
    link = page.get_by_role("link", name="Model version in MLflow")
    open_at(page, f"http://localhost:{stack.web}/{task}/details", link)
    address = page.get_by_role("link", name="Training in MLflow").get_attribute("href")
    assert address
    lines = (stack.env_dir / "registry.env").read_text().splitlines()
    login = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert page.context.browser
    context = page.context.browser.new_context(
        http_credentials={
            "username": login["MLFLOW_TRACKING_USERNAME"],
            "password": login["MLFLOW_TRACKING_PASSWORD"],
        },
        viewport={"width": 1400, "height": 1300},
    )
    try:
        mlflow = context.new_page()
        open_at(mlflow, address, mlflow.get_by_text(f"/dags/nlp_model_training/runs/{run_id}").first)
        shoot(mlflow, "mlflow-run.png")
    finally:
        context.close()


def test_the_form_triggers_a_run_that_succeeds_shows_15_tasks_and_leads_to_mlflow_and_back(
    stack: Stack, page: Page, smoke: dict[str, Any]
) -> None:
    open_form(stack, page)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("checkbox", name="GPU")).to_have_count(1)
    expect(dialog.get_by_role("spinbutton", name="Seed")).to_have_value("0")
    expect(dialog.get_by_role("textbox", name="Editor content")).to_have_count(3)  # data sets, resources, parameters
    expect(dialog.get_by_role("spinbutton", name="Priority")).to_have_value("0")
    reference = smoke["datasets"]["tiny"]["train"]
    fill_form(page, '{"tiny": {"train": "%s", "eval": null}}' % reference)
    shoot(page, "form.png")
    dialog.get_by_role("spinbutton", name="Seed").fill(str(SEED))
    dialog.get_by_role("button", name="Trigger").last.click()

    def new_run() -> str | None:
        query = {"limit": 100, "order_by": "-run_after"}
        runs = stack.http.get("/api/v2/dags/nlp_model_training/dagRuns", params=query).json()["dag_runs"]
        return next((run["dag_run_id"] for run in runs if (run["conf"] or {}).get("seed") == SEED), None)

    run_id = wait_for("the run that the form started", new_run)
    assert run_id
    assert stack.finish(run_id) == "success"
    first = page.get_by_test_id(f"rf__node-{TASKS[0]}")
    show = page.get_by_role("button", name="Show Graph").first
    open_at(page, f"http://localhost:{stack.web}/dags/nlp_model_training/runs/{run_id}", first, through=show)
    # Thirteen steps in a row fit a screen from top to bottom.
    page.get_by_role("button", name="Options").first.click()
    page.get_by_role("combobox").filter(has_text="Left to Right").click()
    page.get_by_role("option", name="Top to Bottom").click()
    page.keyboard.press("Escape")
    for task in TASKS:
        expect(page.get_by_test_id(f"rf__node-{task}")).to_be_attached()
    assert page.locator("[data-testid^=rf__node-]").count() == len(TASKS)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    shoot(page, "graph.png")
    _leads_to_its_model_in_mlflow_and_back(stack, page, run_id)


def test_a_bad_request_from_the_form_shows_why(stack: Stack, page: Page) -> None:
    open_form(stack, page)
    dialog = page.get_by_role("dialog")
    fill_form(page, '{"tiny": {"train": "../../etc/passwd"}}')
    dialog.get_by_role("button", name="Trigger").last.click()
    expect(page.get_by_text("datasets.tiny.train").first).to_be_visible()
    shoot(page, "refused.png")


def test_the_tarmac_page_in_the_navigation_starts_shows_and_ends_a_session(stack: Stack, page: Page, tiny: str) -> None:
    tower = page.frame_locator("iframe[title=Tarmac]")
    link = page.get_by_role("link", name="Tarmac", exact=True)
    open_at(page, f"http://localhost:{stack.web}/", tower.get_by_role("heading", name="Host local"), through=link)

    tower.get_by_role("link", name="New session").click()
    tower.get_by_label("Model").select_option("test_model")
    tower.get_by_role("button", name="Continue").click()
    tower.get_by_label("A file of your own").set_input_files(str(REPO / "examples" / "tiny.jsonl"))
    expect(tower.get_by_text("Stored: 22 lines")).to_be_visible()
    expect(tower.get_by_label("Train on").first).to_have_value(tiny)
    tower.get_by_label("train seconds").fill("3600")
    tower.get_by_text("More", exact=True).click()
    tower.get_by_label("Register as").fill("seen-on-the-page")
    tower.get_by_label("Train anew").check()
    tower.get_by_role("button", name="Check and preview").click()
    expect(tower.get_by_text("The request is good.")).to_be_visible()
    shoot(page, "page-new-in-airflow.png")
    tower.get_by_role("button", name="Start").click()

    # The page tells of the training by itself; nobody reloads it.
    expect(tower.locator(".badge", has_text="training")).to_be_visible()
    run_id = tower.locator("dd").first.inner_text()
    tower.get_by_role("link", name="Now").click()
    row = tower.get_by_role("row").filter(has_text="seen-on-the-page")
    expect(row).to_contain_text("trains")
    shoot(page, "page-in-airflow.png")
    row.get_by_role("link").click()
    tower.get_by_text("Cancel", exact=True).click()
    tower.get_by_role("button", name="End this session").click()
    expect(tower.get_by_text("The session was ended.")).to_be_visible()
    assert stack.finish(run_id) == "failed"
    tower.get_by_role("link", name="Run in Airflow").click()
    page.wait_for_url(f"**/dags/nlp_model_training/runs/{run_id}*")
