"""Fixtures that several parts share. Never imported by name (support.py is for that): it would run a second time and
undo the Hypothesis profile of the command line."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from stages.training.checkpoint.memory_tier import ROOT_VARIABLE
from tests.side_by_side import ByGroup, in_order
from tests.support import EXPLORE, EXPLORED_TIMES, INSTALLATION, REPEATABLE, ObjectStore, installation

# Nothing has imported PyTorch yet. Its threads would otherwise spin while they wait for one another, on processors that
# other processes of tests need: products of small matrices took ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The same commit gives the same verdict on every machine: the examples are drawn from the test's name, and none is
# timed. `pytest --hypothesis-profile=explore` draws new ones and many more; what it finds becomes an `@example`.
settings.register_profile(REPEATABLE, deadline=None, derandomize=True, max_examples=50)
settings.register_profile(EXPLORE, deadline=None, print_blob=True, max_examples=50 * EXPLORED_TIMES)
settings.load_profile(REPEATABLE)


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis also draws from constants of the modules that are imported just then: others in each process of tests,
    and in a part of them. Without those, one commit has one verdict; exploring uses them."""
    if settings.get_current_profile_name() == REPEATABLE:
        nothing = providers.Constants()
        providers._get_local_constants = lambda: nothing


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their number: compressed ones hold the second in which they were made, and every process of
    tests must collect the same names."""
    return f"{argname}-of-{len(val)}-bytes" if isinstance(val, bytes) else None


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """Tests that share something slow to start are run by one process."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest tests start first."""
    in_order(items)


@pytest.fixture(scope="session", autouse=True)
def _memory_of_the_tests() -> Iterator[None]:
    """Checkpoints in memory that a test leaves are not for the user's doctor to name."""
    root = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="headwater-tests-", dir=root) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(ROOT_VARIABLE, folder)
        yield


@pytest.fixture
def own_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """This process looks at a state folder and ports of its own."""
    env = installation(tmp_path)
    for name in [*os.environ]:
        if name.startswith(INSTALLATION):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    yield env


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server for the session, named by this process's environment; a test that stops it restarts it."""
    server = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def bucket(object_store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """URL of a new bucket."""
    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"
