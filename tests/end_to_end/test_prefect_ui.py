"""A manual run in Prefect's own UI, by clicks in a real headless Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as NoRequest

from tests.end_to_end.browser import open_prefect
from tests.end_to_end.house import House
from tests.end_to_end.prefect_client import LONG, TIMEOUT_SECONDS, Prefect, WatchedRun, family, wait_gone

FIELDS = ("recipe", "data", "evaluation_data", "overrides", "force_new_run")


@pytest.fixture
def page(browser: Browser, prefect: Prefect, tmp_path: Path) -> Iterator[Page]:
    """Prefect's start page; its last state is saved as a screenshot beside the test's files."""
    page = browser.new_page(viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(TIMEOUT_SECONDS * 1000)
    open_prefect(page, prefect)
    yield page
    page.screenshot(path=tmp_path / "last-seen.png", full_page=True)
    page.close()


def _open_deployment(page: Page) -> None:
    page.get_by_role("link", name="Deployments").first.click()
    page.get_by_role("link", name="biomed", exact=True).first.click()
    expect(page.get_by_text("At 03:00 AM, only on Sunday")).to_be_visible()


def _open_form(page: Page) -> None:
    _open_deployment(page)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    expect(page.get_by_role("heading", name="Parameters")).to_be_visible()


def _submit(page: Page, prefect: Prefect) -> str:
    """Submits the form and opens the run's page; returns the run's id.

    A click is repeated if no request follows it: while the answer about an earlier value of a field is under way,
    Prefect's form drops it without a word. The link to the run is shown for four seconds only and is not used.
    """
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            with page.expect_request(re.compile("/create_flow_run$"), timeout=10_000) as sent:
                page.get_by_role("button", name="Submit").click()
            break
        except NoRequest:
            assert time.monotonic() < give_up, "the form was not sent"
    response = sent.value.response()
    assert response is not None and response.ok, response
    run = response.json()["id"]
    page.goto(f"{prefect.url}/v2/runs/flow-run/{run}")
    return run


def _fill_overrides(page: Page, overrides: list[str]) -> None:
    for number, override in enumerate(overrides):
        page.get_by_role("button", name="Add item").click()
        # The items have no names of their own; `recipe`, `data` and `evaluation_data` are before them in the form.
        page.locator("form textarea").nth(3 + number).fill(override)


def test_the_form_shows_fields_descriptions_defaults_and_refuses_a_wrong_value(page: Page, prefect: Prefect) -> None:
    _open_form(page)
    properties = prefect.deployment["parameter_openapi_schema"]["properties"]
    assert tuple(properties) == FIELDS
    form = page.locator("form")
    for field in FIELDS:
        expect(form.get_by_text(f"{field} (Optional)", exact=True)).to_be_visible()
        expect(form.get_by_text(properties[field]["description"])).to_be_visible()
    expect(form.get_by_label("recipe (Optional)")).to_have_value("biomed")
    expect(form.get_by_label("data (Optional)", exact=True)).to_have_value("")
    expect(form.get_by_role("switch", name="force_new_run (Optional)")).not_to_be_checked()
    runs = prefect.post("/flow_runs/count", {})
    form.get_by_label("data (Optional)", exact=True).fill("some/folder")
    page.get_by_role("button", name="Submit").click()
    expect(form.get_by_text("'some/folder' does not match")).to_be_visible()
    assert prefect.post("/flow_runs/count", {}) == runs, "refused before a run is created"


def test_the_page_of_a_run_shows_progress_tables_and_links(
    page: Page, prefect: Prefect, house: House, watched_run: WatchedRun
) -> None:
    """The page of a finished run, in a browser."""
    run = watched_run.id
    page.goto(f"{prefect.url}/v2/runs/flow-run/{run}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    shown = page.get_by_role("tabpanel", name="Artifacts")
    for key in (
        "training-progress",
        "corpus",
        "tokens",
        "plan",
        "evaluation",
        "report",
        "mlflow-model",
        "mlflow-run",
        "endpoint",
    ):
        expect(shown.get_by_role("heading", name=key, exact=True)).to_be_visible()
    artifacts = {item["key"]: item["id"] for item in prefect.post("/artifacts/filter", _of(run))}
    for key, words in {
        "training-progress": "Progress: 100%",
        "corpus": "synthetic_monographs",
        "tokens": "gpt2 bytes per token",
        "plan": "synthetic_notes",
        "evaluation": "held-out",
        "endpoint": "OpenAI-compatible endpoint of biomed",
        "report": "biomed: accepted",
    }.items():
        page.goto(f"{prefect.url}/v2/artifacts/artifact/{artifacts[key]}")
        expect(page.get_by_text(words).first).to_be_visible()
    page.goto(f"{prefect.url}/v2/artifacts/artifact/{artifacts['mlflow-model']}")
    link = page.get_by_role("link", name=re.compile("^biomed version"))
    expect(link).to_have_attribute("href", re.compile(f":{house.env['HEADWATER_MLFLOW_PORT']}/#/models/biomed/"))


@pytest.mark.full
def test_a_run_by_hand_that_is_cancelled_in_the_ui_ends_as_cancelled(page: Page, prefect: Prefect) -> None:
    """A browser's form and its Cancel both reach the worker, and the flow ends in time."""
    _open_form(page)
    _fill_overrides(page, LONG)
    run = _submit(page, prefect)
    running = prefect.wait(run, "Running")
    assert running["parameters"]["overrides"] == LONG
    assert running["name"].startswith("biomed ")
    processes = family(running)
    expect(page.get_by_text("Running", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.get_by_role("button", name="Cancel Flow Run").click()
    expect(page.get_by_text("Cancelled", exact=True).first).to_be_visible()
    assert prefect.run(run)["state"]["name"] == "Cancelled"
    wait_gone(processes)


def _of(run: str) -> dict:
    return {"artifacts": {"flow_run_id": {"any_": [run]}}}
