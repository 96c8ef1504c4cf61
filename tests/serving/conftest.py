"""Fixtures: stores and gateways. Helper functions are in gateways.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import client
from serving.engines import engine
from stages.store import Store
from tests.serving.gateways import Gateway, gateway_thread
from tests.support import REPOSITORY


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def remote(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in a bucket of its own; local copies of its files are below `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store(f"{bucket}/headwater")


@pytest.fixture(autouse=True)
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter poll intervals in this process than in production."""
    monkeypatch.setattr(client, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(engine, "HEALTH_POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway over fake engines for all tests of a file, in a thread of this process."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_thread(Store(folder / "store"), folder / "state") as found:
        yield found


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    """The file's gateway, which serves nothing yet; afterwards its engines are ended, and must leave no process."""
    yield shared_gateway
    shared_gateway.clear()


@pytest.fixture(scope="session")
def serve_python() -> Path:
    """Python of the serving environment; tests that need vLLM are skipped without it."""
    default = REPOSITORY / ".venv-serve" / "bin" / "python"
    python = Path(os.environ.get("HEADWATER_SERVE_PYTHON", default))
    if not python.exists():
        pytest.skip(f"vLLM not tested: there is no serving environment at {python}")
    return python
