"""One installation with a shortened run, whose results many tests read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.end_to_end.browser import start_browser
from tests.end_to_end.house import House, own_environment, processes_of
from tests.end_to_end.prefect_client import Prefect, WatchedRun, deployment_run
from tests.support import REPOSITORY


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Runs `headwater run biomed`, shortened, and stops everything at the end; no process may survive."""
    folder = tmp_path_factory.mktemp("house")
    env = own_environment(folder)
    house = House(env, folder, {}, "")
    try:
        result = house.headwater("run", "biomed", "--json", *(f"--set={item}" for item in house.overrides))
        house.summary, house.first_output = json.loads(result.stdout), result.stderr
        yield house
    finally:
        house.command(["make", "stop"], cwd=REPOSITORY)
    deadline = time.monotonic() + 10
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == {}, "alive after make stop"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of pages."""
    with start_browser() as browser:
        yield browser


@pytest.fixture
def prefect(house: House) -> Iterator[Prefect]:
    """The server's interface; runs that a failed test left behind are ended."""
    prefect = Prefect(house)
    yield prefect
    prefect.end_unfinished()


@pytest.fixture(scope="session")
def watched_run(house: House, tmp_path_factory: pytest.TempPathFactory) -> WatchedRun:
    """`prefect deployment run pretrain/biomed --watch` from a foreign directory; every stage is cached."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    code, output = deployment_run(house, elsewhere, f"overrides={json.dumps(house.overrides)}")
    return WatchedRun(Prefect(house).last_started()["id"], code, output)
