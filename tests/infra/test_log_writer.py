"""The logs of local services are bounded, in size and in rate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra import log_writer
from infra.log_writer import LogWriter
from infra.process import ManagedProcess
from stages.processes import wait_for_exit


def test_a_full_log_becomes_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    path.write_bytes(b"from an earlier start\n")
    writer = LogWriter(path, max_bytes=100, window_bytes=10_000)
    for n in range(40):
        writer.write(b"line %2d\n" % n)
    assert path.read_bytes().endswith(b"line 39\n") and path.stat().st_size <= 100
    assert path.with_name("service.log.1").stat().st_size <= 100
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_beyond_the_rate_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "service.log", 0.0
    monkeypatch.setattr(log_writer.time, "monotonic", lambda: now)
    writer = LogWriter(path, window_bytes=100)
    for _ in range(50):
        writer.write(b"0123456789")
    assert path.read_bytes() == b"0123456789" * 10
    now = log_writer.WINDOW_SECONDS
    writer.write(b"next")
    assert b"[400 bytes of this log were left out" in path.read_bytes() and path.read_bytes().endswith(b"next")


def test_a_full_disk_ends_neither_the_writer_nor_the_count(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    path.symlink_to("/dev/full")
    writer = LogWriter(path)
    writer.write(b"lost")
    writer.report_left_out()
    path.unlink()
    writer._file = path.open("ab", buffering=0)
    writer.write(b"next\n")
    writer.report_left_out()
    assert path.read_bytes().startswith(b"next\n\n[4 bytes of this log were left out")


def test_a_services_output_ends_in_its_log_whole(tmp_path: Path) -> None:
    process = ManagedProcess(tmp_path, "talker")
    code = "import sys; print('x' * 200_000, flush=True); print('last words', file=sys.stderr)"
    process.start([sys.executable, "-c", code], {}, tmp_path)
    running = process.find()
    assert not wait_for_exit([running] if running else [], 30)
    assert process.last_lines(1) == "last words" and process.log.stat().st_size == 200_000 + 1 + 11
