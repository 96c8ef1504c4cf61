"""What a measured run of the tests hands to the processes that they start."""

from __future__ import annotations

import os
from pathlib import Path

from infra.check import coverage, leftovers
from tests.end_to_end.house import own_environment
from tests.support import INSTALLATION


def test_processes_of_an_installation_are_measured_too(tmp_path: Path) -> None:
    """An installation of a test hears nothing of ours but what is meant for every process."""
    before = dict(os.environ)
    with coverage.measured(tmp_path / "data"):
        names = {name for name in os.environ if os.environ[name] != before.get(name)}
        handed_on = own_environment(tmp_path)
        assert len(names) == 2 and names <= set(handed_on)
    assert dict(os.environ) == before
    assert not leftovers.VARIABLE.startswith(INSTALLATION)
