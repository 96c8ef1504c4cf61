"""Logs that no client can fill."""

from __future__ import annotations

import logging
from pathlib import Path

from serving.logs import MAX_MESSAGES, REPEATS, WINDOW_SECONDS, RepeatFilter, limit_log


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("headwater", logging.WARNING, "", 0, message, arguments, None)


def test_a_repeated_message_is_left_out_and_counted() -> None:
    now = 0.0
    repeats = RepeatFilter(lambda: now)
    passed = [repeats.filter(record("client %d failed", n)) for n in range(1000)]
    assert passed == [True] * REPEATS + [False] * (1000 - REPEATS)
    assert repeats.filter(record("another")), "others pass"
    assert not repeats.filter(record("client %d failed\nfd=5", 5)), "what follows the first line differs"
    now = WINDOW_SECONDS
    later = record("client %d failed", 7)
    assert repeats.filter(later) and later.getMessage().startswith("client 7 failed (991 more")
    assert len([n for n in range(3 * MAX_MESSAGES) if repeats.filter(record(f"message {n}"))]) == 3 * MAX_MESSAGES
    assert len(repeats._seen) <= MAX_MESSAGES


def test_a_log_that_a_process_appends_to_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    limit_log(path)  # there is none yet
    with path.open("ab", buffering=0) as log:
        log.write(b"a" * 100)
        limit_log(path, 100)
        assert path.stat().st_size == 100
        log.write(b"b")
        limit_log(path, 100)
        log.write(b"after")
    assert path.read_bytes() == b"after"
    assert (tmp_path / "engine.log.1").read_bytes() == b"a" * 100 + b"b"
