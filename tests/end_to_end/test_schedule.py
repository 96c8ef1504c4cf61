"""The weekly schedule exists, and a schedule that is due starts a run by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.end_to_end.house import House
from tests.end_to_end.prefect_client import LONG, TIMEOUT_SECONDS, Prefect, family, kill

MONTH = timedelta(days=31)


def _scheduled(prefect: Prefect, before: datetime) -> list[dict]:
    """The schedulers' runs of the deployment that are expected to start before a time."""
    chosen = {"expected_start_time": {"before_": before.isoformat()}}
    found = prefect.post("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": chosen})
    return [run for run in found if run["auto_scheduled"]]


def test_the_weekly_schedule_has_its_next_runs_waiting(prefect: Prefect) -> None:
    assert [schedule["schedule"]["cron"] for schedule in prefect.deployment["schedules"]] == ["0 3 * * 0"]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (runs := _scheduled(prefect, datetime.now(UTC) + MONTH)):
        assert time.monotonic() < deadline, "the scheduler makes no run"
        time.sleep(0.5)
    starts = [datetime.fromisoformat(run["next_scheduled_start_time"]) for run in runs]
    assert all(start.strftime("%a %H:%M") == "Sun 03:00" for start in starts)


@pytest.fixture
def short_schedule(house: House, prefect: Prefect) -> Iterator[str]:
    """The id of a schedule whose first run, of cached stages, is due in some seconds; removed at the end."""
    place = f"/deployments/{prefect.deployment['id']}/schedules"
    schedule = {
        # A busy server may miss the first one. A run finishes before the next one is due.
        "schedule": {"interval": 90, "anchor_date": (datetime.now(UTC) + timedelta(seconds=20)).isoformat()},
        "parameters": {"overrides": house.overrides},
        "active": True,
    }
    schedule_id = prefect.post(place, [schedule])[0]["id"]
    yield schedule_id
    prefect.ask("DELETE", f"{place}/{schedule_id}")


def test_a_run_that_is_due_starts_by_itself_when_a_killed_one_has_freed_its_slot(
    prefect: Prefect, house: House, request: pytest.FixtureRequest
) -> None:
    """Schedule, worker and the pool's only slot together: a killed run ends as crashed and blocks no other."""
    killed = prefect.run_deployment(LONG)
    request.getfixturevalue("short_schedule")
    processes = family(prefect.wait(killed, "Running"))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (runs := _scheduled(prefect, datetime.now(UTC))):
        assert time.monotonic() < deadline, "no run was due"
        time.sleep(0.5)
    assert prefect.run(killed)["state"]["type"] == "RUNNING"
    assert prefect.run(runs[0]["id"])["state"]["type"] in ("SCHEDULED", "PENDING"), "one run at a time"
    kill(processes)
    assert prefect.wait(killed, "Crashed")["state"]["type"] == "CRASHED"
    done = prefect.wait(runs[0]["id"], "Completed")
    assert done["parameters"]["overrides"] == house.overrides
    assert "endpoint" in prefect.artifacts(done["id"])


def test_a_removed_schedule_starts_nothing_more(prefect: Prefect) -> None:
    """After the test above: the runs that it had planned are removed too."""
    soon = datetime.now(UTC) + timedelta(minutes=30)
    waiting = [run for run in _scheduled(prefect, soon) if run["state"]["type"] == "SCHEDULED"]
    assert waiting == []
