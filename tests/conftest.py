"""Fixtures that several parts share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"

# The same commit gives the same verdict on every machine: the examples are drawn from the test's name, and none is
# timed. `pytest --hypothesis-profile=explore` draws new ones; what it finds becomes an `@example`.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("repeatable")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def installation(folder: Path) -> dict[str, str]:
    """Environment of an installation of its own: state folder, ports, Prefect profiles."""
    return {
        "HEADWATER_HOME": str(folder / "home"),
        "HEADWATER_STORE": str(folder / "home" / "store"),
        "HEADWATER_PREFECT_PORT": str(free_port()),
        "HEADWATER_MLFLOW_PORT": str(free_port()),
        "HEADWATER_GATEWAY_PORT": str(free_port()),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }


@pytest.fixture
def own_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """This process looks at a state folder and ports of its own."""
    env = installation(tmp_path)
    for name in [*os.environ]:
        if name.startswith(("HEADWATER_", "PREFECT_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    yield env
