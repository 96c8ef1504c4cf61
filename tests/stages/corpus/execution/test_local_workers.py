"""Local workers: the same results however many, errors as they are, and no process that stays."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.corpus import CorpusConfig
from stages.corpus.execution import local_workers
from stages.corpus.execution.executor import make_workers
from stages.corpus.execution.local_workers import LocalWorkers
from stages.store import HeadwaterError, InputError
from tests.stages.corpus.execution.executor_steps import (
    IN_WORKER,
    Fail,
    Numbers,
    Together,
    WriteIds,
    WriteModules,
    import_nothing_more,
)
from tests.stages.corpus.execution.parents import killed_at_work

_before: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No child of this process that was not there before."""
    _before.clear()
    _before.update(psutil.Process().children(recursive=True))
    yield
    assert not _children()


IMPORT_STEPS = local_workers._import_steps


@pytest.fixture(autouse=True)
def small_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import no more than the steps of these tests, which takes half as long as the stage's."""
    monkeypatch.setattr(local_workers, "_import_steps", import_nothing_more)


def _children() -> list[psutil.Process]:
    """This process's new children, but for multiprocessing's own, which lives as long as we do."""
    children = set(psutil.Process().children(recursive=True)) - _before
    return [process for process in children if "resource_tracker" not in " ".join(process.cmdline())]


def _contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_results_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    results, finished = [], []
    for count in (1, 2):
        out, meet = tmp_path / f"out{count}", tmp_path / f"meet{count}"
        out.mkdir()
        meet.mkdir()
        done: list[int] = []
        with LocalWorkers(count) as workers:
            workers.run([Numbers(), WriteIds(out), Together(meet, count)], 20, tmp_path / f"logs{count}", done.append)
            workers.run([Numbers(1)], 3, tmp_path / f"more{count}", done.append)
        results.append(_contents(out))
        finished.append(sorted(done))
        stats = json.loads((tmp_path / f"logs{count}/stats/00007.json").read_text())
        assert stats[0]["stats"]["documents"] == 3
        assert len(list((tmp_path / f"logs{count}/completions").iterdir())) == 20
        assert not list((tmp_path / f"logs{count}").glob("*.pickle"))
    assert results[0] == results[1] and len(results[0]) == 20
    # Each rank's copy of the steps is its own: it has seen one rank.
    assert results[0]["7"].splitlines()[0] == "7/0 rank 7 of 20 1"
    assert finished[0] == finished[1] == sorted([*range(20), 0, 1, 2])
    assert not _children()


def test_completed_ranks_are_not_run_again(tmp_path: Path, out: Path):
    logs = tmp_path / "logs"
    (logs / "completions").mkdir(parents=True)
    (logs / "completions/00001").touch()
    done: list[int] = []
    with LocalWorkers(1) as workers:
        workers.run([Numbers(), WriteIds(out)], 3, logs, done.append)
    assert sorted(_contents(out)) == ["0", "2"] and done == [0, 1, 2]


@pytest.mark.parametrize(
    ("way", "kind", "text", "count"),
    [
        ("input", InputError, "what.jsonl:7 is no document", 3),
        ("value", ValueError, "no number", 2),
        ("odd", HeadwaterError, "OddError: odd 7", 2),
        ("die", HeadwaterError, "worker process was killed", 3),
    ],
)
def test_what_a_rank_raises_arrives_and_stops_the_others(
    tmp_path: Path, out: Path, way: str, kind: type[Exception], text: str, count: int
):
    done: list[int] = []
    with LocalWorkers(count) as workers:
        with pytest.raises(kind, match=text) as caught:
            workers.run([Fail(IN_WORKER, way, 0.1, out), Together(out)], 500, tmp_path / "logs", done.append)
        assert type(caught.value) is kind
        assert not _children()
        assert len(done) < 100
        done.clear()
        workers.run([Numbers()], 4, tmp_path / "next", done.append)
    assert sorted(done) == [0, 1, 2, 3]
    assert not _children()


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_told_of(tmp_path: Path, out: Path):
    with LocalWorkers(2) as workers:
        workers.run([Together(out)], 2, tmp_path / "logs", lambda rank: None)
        for child in _children():
            child.kill()
        with pytest.raises(HeadwaterError, match="worker process was killed"):
            workers.run([Fail(-1, "", 0.01)], 1000, tmp_path / "next", lambda rank: None)
        workers.run([Numbers()], 4, tmp_path / "again", lambda rank: None)


def test_a_worker_is_the_first_to_go_when_memory_ends(tmp_path: Path, out: Path):
    own = int(Path("/proc/self/oom_score_adj").read_text())
    with LocalWorkers(2) as workers:
        workers.run([Together(out)], 2, tmp_path / "logs", lambda rank: None)
        assert [int(Path(f"/proc/{child.pid}/oom_score_adj").read_text()) > own for child in _children()] == [True]
    assert int(Path("/proc/self/oom_score_adj").read_text()) == own


def test_what_is_soon_done_does_not_wait_for_workers(tmp_path: Path, out: Path):
    with LocalWorkers(2) as workers:
        workers.run([Numbers(), WriteModules(out)], 3, tmp_path / "logs", lambda rank: None)
    assert [text.split()[0] for text in _contents(out).values()] == [str(os.getpid())] * 3


def test_one_worker_raises_as_well(tmp_path: Path):
    with LocalWorkers(1) as workers, pytest.raises(InputError, match="no document"):
        workers.run([Fail(1, "input")], 3, tmp_path / "logs", lambda rank: None)


@pytest.mark.parametrize("count", [1, 2])
def test_a_rank_without_mark_is_an_error(tmp_path: Path, count: int):
    logs = tmp_path / "logs"

    def lose(rank: int) -> None:
        (logs / f"completions/{rank:05}").unlink()

    with (
        LocalWorkers(count) as workers,
        pytest.raises(HeadwaterError, match=r"3 of 3 tasks .* without a completion file"),
    ):
        workers.run([Numbers()], 3, logs, lose)


def test_an_error_while_it_tells_ends_the_workers(tmp_path: Path):
    def interrupted(rank: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), LocalWorkers(2) as workers:
        workers.run([Fail(0, "", 0.01)], 10_000, tmp_path / "logs", interrupted)
    assert not _children()


def test_a_signal_to_the_whole_group_is_for_the_parent(tmp_path: Path, out: Path):
    sent = []

    meet = tmp_path / "meet"
    meet.mkdir()

    def send(rank: int = -1) -> None:
        for child in _children():
            child.send_signal(signal.SIGTERM)
            child.send_signal(signal.SIGINT)
            sent.append(child.pid)

    with LocalWorkers(2) as workers:
        send()  # also to one that has not begun to run Python
        workers.run([Numbers(), WriteIds(out), Together(meet)], 10, tmp_path / "logs", send)
    assert len(sent) >= 11 and len(_contents(out)) == 10


def test_a_worker_imports_no_more_than_it_needs(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_workers, "_import_steps", IMPORT_STEPS)
    meet = tmp_path / "meet"
    meet.mkdir()
    with LocalWorkers(2) as workers:
        workers.run([WriteModules(out), Together(meet)], 2, tmp_path / "logs", lambda rank: None)
    pids = {int(text.split()[0]): text.split()[1:] for text in _contents(out).values()}
    assert len(pids) == 2
    del pids[os.getpid()]
    assert pids.popitem()[1] == [str(os.getpid())]


def test_workers_end_with_their_parent(tmp_path: Path, out: Path):
    program = (
        "import sys; from pathlib import Path\n"
        "from stages.corpus.execution.local_workers import LocalWorkers\n"
        "from tests.stages.corpus.execution.executor_steps import Fail\n"
        "with LocalWorkers(2) as workers:\n"
        "    workers.run([Fail(-1, '', 600, Path(sys.argv[1]))], 2, Path(sys.argv[2]), print)\n"
    )
    family, alive = killed_at_work([sys.executable, "-c", program, str(out), str(tmp_path / "logs")], out)
    assert len(family) >= 2
    assert not alive


def test_the_local_executor_is_the_default():
    config = CorpusConfig.model_validate({"sources": {"a": {"location": "x"}}})
    assert isinstance(make_workers(config), LocalWorkers)
