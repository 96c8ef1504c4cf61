"""The variables that a run with coverage passes to the processes of tests."""

from __future__ import annotations

import os
from pathlib import Path

from infra.check import coverage, leftovers
from tests.end_to_end.house import own_environment
from tests.support import INSTALLATION


def test_processes_of_an_installation_are_measured_too(tmp_path: Path) -> None:
    """A test's installation gets none of our variables, except those for every process."""
    before = dict(os.environ)
    with coverage.measure(tmp_path / "data"):
        names = {name for name in os.environ if os.environ[name] != before.get(name)}
        inherited = own_environment(tmp_path)
        assert len(names) == 2 and names <= set(inherited)
    assert dict(os.environ) == before
    assert not leftovers.VARIABLE.startswith(INSTALLATION)
