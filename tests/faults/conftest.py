"""Prepared inputs, the stages' artifacts without any fault, the forge, and small file systems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.store import Artifact, Store, load
from tests.faults import jobs
from tests.faults.disk import SmallDisk
from tests.faults.forge import Forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """The process that runs stages; its inputs are prepared."""
    inputs = tmp_path_factory.mktemp("inputs")
    forge = Forge(tmp_path_factory.mktemp("runs"), inputs)
    prepared = forge.run("prepare", str(inputs / "store"))
    assert prepared.wait() == 0, prepared.log
    yield forge
    forge.end()


@pytest.fixture(scope="session")
def undisturbed(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Each stage's artifact without any fault."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    artifacts = {}
    for name in jobs.STAGES:
        artifact = load(store, forge.run(name, store.url).result["folder"])
        assert artifact is not None
        artifacts[name] = artifact
    return artifacts


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty store, local or on S3 by the test's parameter; the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if getattr(request, "param", "file") == "s3":
        return request.getfixturevalue("bucket") + "/store"
    return str(tmp_path / "store")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of its own, whose size and writability the test sets."""
    if os.geteuid() != 0:
        pytest.skip("full and read-only disks not tested: only root can mount a tmpfs")
    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"full and read-only disks not tested: no tmpfs can be mounted here: {error.stderr.strip()}")
    try:
        yield disk
    finally:
        disk.unmount()
