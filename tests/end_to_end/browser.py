"""A real headless Chromium, and the way into Prefect's pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.end_to_end.prefect_client import TIMEOUT_SECONDS, Prefect

FOREIGN_NAME = "evil.example"
"""A name that the browser resolves to this machine."""
FLAGS = [
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    # No request goes beyond this machine, whatever a page or the browser itself would fetch.
    f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Debian's Chromium with a profile of its own; Playwright ends it with all its processes."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("pages not tested: no Chromium (infra/browser.sh installs it, for root on Debian)")
    expect.set_options(timeout=TIMEOUT_SECONDS * 1000)  # the page asks the server now and then, and both may be slow
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


def open_prefect(page: Page, prefect: Prefect) -> None:
    """Opens Prefect's start page, which asks for the password once."""
    page.goto(prefect.url)
    page.get_by_placeholder("admin:pass").fill(prefect.auth)
    page.get_by_role("button", name="Login").click()
    expect(page.get_by_role("link", name="Deployments").first).to_be_visible()
