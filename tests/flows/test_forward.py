"""The forwarder: every event reaches every sink in order; a sink that fails receives the same events once more."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import pytest
from rich.console import Console

from flows.forward import Forwarder, TerminalSink, describe, duration
from stages.store import EventLog, Store
from stages.store.events import Event


class Recorder:
    """A sink that fails the first `failures` times."""

    def __init__(self, start: int = 0, failures: int = 0):
        self.begin, self.failures = start, failures
        self.seen: list[str] = []
        self.offset = start
        self.closed = False

    def start(self, events: EventLog) -> int:
        return self.begin

    def consume(self, events: list[Event], offset: int) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("connection refused")
        self.seen += [event["type"] for event in events]
        self.offset = offset

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(Store(tmp_path), "toy/x")


def test_everything_arrives_in_order_and_once(log: EventLog) -> None:
    sinks = [Recorder(), Recorder()]
    with Forwarder(log.store, log.folder, sinks):
        for number in range(50):
            log.emit(f"e{number}")
            time.sleep(0.02)
    for sink in sinks:
        assert sink.seen == [f"e{number}" for number in range(50)]
        assert sink.closed


def test_a_failing_sink_misses_nothing_and_does_not_delay_the_others(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    failing, healthy = Recorder(failures=2), Recorder()
    with caplog.at_level(logging.WARNING), Forwarder(log.store, log.folder, [failing, healthy]):
        log.emit("first")
        time.sleep(2.0)
        log.emit("second")
    assert failing.seen == healthy.seen == ["first", "second"]
    assert "Recorder does not answer; the run continues, events are forwarded later: connection refused" in caplog.text
    assert "Recorder has received all events" in caplog.text


def test_forwarding_resumes_at_the_saved_offset(log: EventLog) -> None:
    first = Recorder()
    with Forwarder(log.store, log.folder, [first]):
        log.emit("before")
    second = Recorder(start=first.offset)
    with Forwarder(log.store, log.folder, [second]):
        log.emit("after")
    assert (first.seen, second.seen) == (["before"], ["after"])


def test_a_log_gets_plain_lines_now_and_then(log: EventLog) -> None:
    out = io.StringIO()
    sink = TerminalSink("training", Console(file=out, width=200), interval_seconds=0.0)
    with Forwarder(log.store, log.folder, [sink]):
        log.emit("step", step=1, loss=2.5, tokens_per_second=1000.0)
        log.progress(1, 4, "steps", seconds_left=150.0)
        time.sleep(1.0)
        log.emit("validation", step=1, bits_per_byte=1.25)
        log.emit("checkpoint", step=1)
        log.emit("step", step=2, loss=2.0, tokens_per_second=1000.0)
        log.progress(4, 4, "steps", seconds_left=0.0)
    found = " ".join(out.getvalue().split())
    assert "training: 1 of 4 steps, loss 2.500, 1,000 tokens/s, 2 min left" in found
    assert "training: 4 of 4 steps, loss 2.000, 1,000 tokens/s, held-out 1.250 bits per byte at step 1" in found


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(log: EventLog) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with Forwarder(log.store, log.folder, [TerminalSink("corpus", console)]):
        log.progress(512, 1024, "documents")
        log.emit("step", step=1, loss=2.5, tokens_per_second=1000.0)
        time.sleep(1.0)
    assert "512/1024" in out.getvalue() and "ETA" in out.getvalue() and "loss 2.500" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (12_000, "3 h 20 min"), (190_800, "2 d 5 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_events_are_described_for_people() -> None:
    assert (
        describe({"type": "validation", "step": 3, "bits_per_byte": 1.25}) == "held-out 1.250 bits per byte at step 3"
    )
    assert describe({"type": "worker_lost", "rank": 1, "reason": "killed"}) == "worker 1 was lost: killed"
    refused = {"type": "checkpoint_refused", "files": ["step-00000004/index.json"], "reasons": ["not what was written"]}
    assert describe(refused) == "checkpoint passed over: step-00000004/index.json (not what was written)"
    assert describe({"type": "restart", "step": 4, "checkpoint": "step-00000004"}) == "restarted from step-00000004"
    assert describe({"type": "restart", "step": 0, "checkpoint": None}) == "restarted from the beginning"
    assert describe({"type": "pass_finished", "pass_name": "near_duplicates", "removed": 3}) == ""
    assert describe({"type": "unheard of"}) == ""
