"""A plugin of pytest that writes down what each test took (`-p infra.check.record`), and names the tests to coverage.

Seconds are written by the process that reports: the only one, or the one that hands tests out to others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

FILE_VARIABLE = "HEADWATER_TEST_SECONDS"
"""Names the file to write: JSON, `{test: {"setup": seconds, "call": seconds, "teardown": seconds}}`."""

_seconds: dict[str, dict[str, float]] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What is run from here on, fixtures included, is run for this test."""
    if os.environ.get("COVERAGE_PROCESS_START"):
        import coverage

        if (current := coverage.Coverage.current()) is not None:
            current.switch_context(item.nodeid)
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keeps a phase's seconds."""
    _seconds.setdefault(report.nodeid, {})[report.when or "call"] = report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the file."""
    file = os.environ.get(FILE_VARIABLE)
    if file and not hasattr(session.config, "workerinput"):
        Path(file).write_text(json.dumps(_seconds))
