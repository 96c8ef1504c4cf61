"""A process that is killed at any moment of a save leaves a whole checkpoint: the new one, or the one before."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.store import Store
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.memory_tier import ROOT_VARIABLE
from tests.stages.training.checkpoint.small import Small, restored
from tests.stages.training.ranks import begin_imports

KILLED = 9
_CHANGES = {"os.remove": 0, "os.rename": 1, "os.mkdir": 0, "os.rmdir": 0, "shutil.rmtree": 0, "os.truncate": 0}
"""Audit events, and which argument is the path that is changed."""
_WRITING = os.O_WRONLY | os.O_RDWR


def _kill_at(number: int, base: Path) -> list[str]:
    """From now on this process ends just before its `number`-th change below `base`, or synchronization of a file;
    returns what has come so far."""
    seen: list[str] = []
    lock = threading.Lock()

    def count(what: str) -> None:
        with lock:
            if len(seen) == number:
                os._exit(KILLED)
            seen.append(what)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        at = _CHANGES.get(event)
        if event == "open" and arguments[2] & _WRITING:
            at = 0
        if at is not None and isinstance(arguments[at], str | os.PathLike) and str(arguments[at]).startswith(str(base)):
            count(f"{event} {Path(arguments[at]).name}")

    real = os.fsync

    def fsync(fd: Any) -> None:
        count("fsync")
        real(fd)

    sys.addaudithook(audit)
    os.fsync = fsync
    return seen


def _save(base: Path, number: int, memory: bool) -> None:
    """Saves step 1, then step 2 until it is killed."""
    _memory(base)
    run = Small(Store(base / "store"), keep=1, memory_every_steps=1 if memory else 0)
    run.restore()
    run.save(1)
    seen = _kill_at(number, base)
    run.save(2)
    (base.parent / f"moments-{base.name}").write_text("\n".join(seen))


def _memory(base: Path) -> Path:
    folder = base / "memory"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[ROOT_VARIABLE] = str(folder)
    return folder


def _start(base: Path, number: int, memory: bool) -> int | None:
    begin_imports()
    process = multiprocessing.get_context("forkserver").Process(target=_save, args=(base, number, memory), daemon=True)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv(ROOT_VARIABLE, "")
        yield


@pytest.mark.parametrize("memory", [False, True])
def test_killed_at_every_write_of_a_save_it_leaves_a_whole_checkpoint(tmp_path: Path, memory: bool) -> None:
    assert _start(tmp_path / "whole", 1 << 30, memory) == 0
    moments = (tmp_path / "moments-whole").read_text().splitlines()
    assert sum(moment == "fsync" for moment in moments) >= 5, "four files and the manifest"
    # The first and last moments, and every second one between.
    numbers = sorted({0, 1, *range(2, len(moments), 2), len(moments) - 2, len(moments) - 1})
    found = []
    for number in numbers:
        base = tmp_path / str(number)
        assert _start(base, number, memory) == KILLED
        on_disk = (base / "store" / "run" / "checkpoints" / step_folder(2) / MANIFEST).exists()
        _memory(base)
        step, run = restored(Store(base / "store"), memory_every_steps=1 if memory else 0)
        assert step == 2 or (step == 1 and not on_disk), f"before {moments[number]}"
        assert not run.refused, "what is half-written is not looked at"
        found.append(step)
    assert found == sorted(found, key=lambda step: step or 0) and {*found} == {1, 2}
