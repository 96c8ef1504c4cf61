"""A file of a checkpoint on disk: every byte, and the checksums, whatever the file system can do."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import random
from pathlib import Path
from typing import Any

import pytest
import xxhash

from stages.training.checkpoint.writing import CHUNK, write_file

SIZES = [0, 1, 4095, 4096, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 4096, 2 * CHUNK, 3 * CHUNK + 12_345]


def _content(size: int) -> memoryview:
    """At a page's start, as a slot's memory is."""
    memory = mmap.mmap(-1, max(size, 1))
    memory.write(random.Random(size).randbytes(size))
    return memoryview(memory)[:size]


def _assert_written(content: memoryview, path: Path) -> None:
    entry = write_file(content, "x", path)
    data = path.read_bytes()
    assert data == bytes(content)
    assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert entry.xxh3 == xxhash.xxh3_128(data).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", SIZES)
def test_the_file_holds_every_byte_and_its_checksums(tmp_path: Path, size: int) -> None:
    _assert_written(_content(size), tmp_path / "x")


def test_memory_that_begins_between_pages_is_written_too(tmp_path: Path) -> None:
    _assert_written(_content(3 * CHUNK)[100:], tmp_path / "x")


@pytest.mark.parametrize("from_write", [0, 1, 2])
def test_a_file_system_that_refuses_direct_writes_gets_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_write: int
) -> None:
    """Some refuse the flag, some the first write, some what others accept: larger pages."""
    real, refused = os.write, []

    def write(handle: int, data: memoryview) -> int:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT and len(calls) >= from_write:
            refused.append(len(data))
            raise OSError(errno.EINVAL, "Invalid argument")
        calls.append(len(data))
        return real(handle, data)

    calls: list[int] = []
    monkeypatch.setattr(os, "write", write)
    _assert_written(_content(3 * CHUNK + 5), tmp_path / "x")
    assert len(refused) == 1, "asked once, plain from then on"


def test_a_file_system_without_the_flag_gets_plain_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def refuse(handle: int, command: int, *values: Any) -> Any:
        if command == fcntl.F_SETFL and values[0] & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(handle, command, *values)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    _assert_written(_content(2 * CHUNK + 5), tmp_path / "x")


def test_writes_that_are_cut_short_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal or a nearly full disk: the rest then begins between pages."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[: max(4096, len(data) // 2)]))
    _assert_written(_content(CHUNK + 3), tmp_path / "x")


def test_another_error_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(_content(2 * CHUNK), "x", tmp_path / "x")
