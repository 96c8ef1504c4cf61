"""The status of batches, from events as the loop writes them: with stops, kills, skips and rollbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stages.provenance.batch_log import EVENT_TYPES, BatchLog, BatchStatus
from stages.store import EventLog, Store


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"time": 0.0, "type": kind, **fields}


def test_a_run_without_events() -> None:
    assert BatchLog.from_events([]).status(0) == BatchStatus("not reached", 0, 0)


def test_a_killed_run_resumes_from_its_checkpoint() -> None:
    events = [
        event("workers", world=4),
        event("step", step=0),
        event("checkpoint", step=100),
        event("step", step=130),
        event("worker_lost", rank=2),
        event("restart", step=100, world=3),
        event("workers", world=3),
        event("step", step=110),
    ]
    log = BatchLog.from_events(events)
    assert log.status(99) == BatchStatus("applied", 0, 4)
    assert log.status(105) == BatchStatus("applied", 1, 3)
    assert log.status(120) == BatchStatus("discarded", 1, 3)
    assert log.status(131) == BatchStatus("not reached", 0, 3)


def test_a_rollback_that_skips_batches() -> None:
    """Trained on, rolled back, and skipped from then on: that is not in the weights, and was seen once."""
    events = [
        event("workers", world=2),
        event("checkpoint", step=50),
        event("step", step=61),
        event("restart", step=50, world=2),
        event("workers", world=2),
        event("skipped", first=58, end=62),
        event("step", step=57),
        event("step", step=70),
    ]
    log = BatchLog.from_events(events)
    assert [log.status(number).state for number in (57, 58, 61, 62)] == ["applied", "skipped", "skipped", "applied"]
    assert [log.status(number).discarded for number in (49, 50, 61, 62)] == [0, 1, 1, 0]
    assert (log.applied, log.skipped) == ([(0, 58), (62, 71)], [(58, 62)])


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[tuple[str, int, int]]]:
    """A run with some kills, step by step as in the loop: its events, and the status of each batch."""
    steps, every = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    ranges = draw(st.lists(st.tuples(st.integers(0, 39), st.integers(1, 6)), max_size=2))
    excluded = {number for first, size in ranges for number in range(first, first + size)}
    state, lost, ranks = ["not reached"] * steps, [0] * steps, [0] * steps
    events: list[dict[str, Any]] = []
    saved = 0
    for attempt in range(draw(st.integers(1, 4))):
        world = draw(st.integers(1, 4))
        if attempt:
            events.append(event("restart", step=saved, world=world))
        for number in range(saved, steps):
            lost[number] += state[number] == "applied"
            state[number], ranks[number] = "discarded" if lost[number] else "not reached", world
        events.append(event("workers", world=world))
        number, end = saved, draw(st.integers(saved, steps))
        while number < end:
            if number in excluded:
                first = number
                while number < steps and number in excluded:
                    state[number], number = "skipped", number + 1
                events.append(event("skipped", first=first, end=number))
                continue
            state[number], number = "applied", number + 1
            if number % every == 0:
                events.append(event("checkpoint", step=number))
                saved = number
            elif number == end or draw(st.booleans()):  # only some steps are reported
                events.append(event("step", step=number - 1))
    return events, list(zip(state, lost, ranks, strict=True))


@given(runs())
def test_any_run_is_read_from_its_events(run: tuple[list[dict[str, Any]], list[tuple[str, int, int]]]) -> None:
    events, statuses = run
    log = BatchLog.from_events(events)
    assert [log.status(number) for number in range(len(statuses))] == statuses


def test_a_log_is_read_without_most_of_its_lines(tmp_path: Path) -> None:
    """The same status from the events of `EVENT_TYPES` and the last step before each of them."""
    log = EventLog(Store(tmp_path), "training/x")
    log.emit("workers", world=2)
    for number in range(40):
        if number == 7:
            log.emit("skipped", first=7, end=9)
        if number == 25:
            log.emit("restart", step=20, world=3)
            log.emit("workers", world=3)
        if number not in (7, 8):
            log.emit("step", step=number if number < 25 else number - 5, note='a "type": "restart" in the text')
        log.emit("progress", done=number)
    log.emit("failed", error="out of memory")
    few, end = log.read(only=EVENT_TYPES, newest=("step",))
    everything, _ = log.read()
    assert [event["type"] for event in few] == ["workers", "step", "skipped", "step", "restart", "workers", "step"]
    assert BatchLog.from_events(few) == BatchLog.from_events(everything)
    assert log.read(end, only=EVENT_TYPES) == ([], end)
