"""A pytest plugin (`-p infra.check.record`) that records the duration of each test, and names tests to coverage.

The process that reports writes the durations: the only one, or the one that distributes tests to the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

FILE_VARIABLE = "HEADWATER_TEST_SECONDS"
"""The output file: JSON, `{test: {"setup": seconds, "call": seconds, "teardown": seconds}}`."""

_seconds: dict[str, dict[str, float]] = {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Attributes the coverage from here on, fixtures included, to this test."""
    if os.environ.get("COVERAGE_PROCESS_START"):
        import coverage

        if (current := coverage.Coverage.current()) is not None:
            current.switch_context(item.nodeid)
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Records the duration of a phase."""
    _seconds.setdefault(report.nodeid, {})[report.when or "call"] = report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the output file."""
    file = os.environ.get(FILE_VARIABLE)
    if file and not hasattr(session.config, "workerinput"):
        Path(file).write_text(json.dumps(_seconds))
