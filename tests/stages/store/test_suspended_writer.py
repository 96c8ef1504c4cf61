"""A writer that was suspended wakes at every moment of the life of the one that took its work over: on a heartbeat, on
its commit, on the release of its lease. What the other one finishes stays as it is."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, ArtifactWriter, Config, HeadwaterError, LeaseHeldError, Stage, Store, load
from stages.store import artifact as artifact_module
from stages.store import lease as lease_module
from stages.store.lease import Lease
from tests.support import damaged_files

OPERATIONS = ("put", "create", "put_file", "rewrite", "append", "remove", "list", "files", "read", "size", "exists")
FILES = ("a.txt", "b/c.txt")


class SteppingStore(Store):
    """A store that calls `before(n)` before its n-th operation, and `before_move(name)` before a file gets its name."""

    def __init__(self, url: str):
        super().__init__(url)
        self.steps, self.before = 0, lambda number: None
        self.before_move = lambda name: None
        self._lock = threading.RLock()


def _stepping(name: str) -> Any:
    def operation(self: SteppingStore, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self.steps += 1
            number = self.steps
        self.before(number)
        if name in ("put_file", "create"):
            self.before_move(args[0] if name == "create" else args[1])
        return getattr(Store, name)(self, *args, **kwargs)

    return operation


for _name in OPERATIONS:
    setattr(SteppingStore, _name, _stepping(_name))


class Text(Config):
    pass


def stage(text: str) -> Stage[Text]:
    """The same plan, whoever builds it; the result differs, as a training run's does."""

    def build(config: Text, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
        for path in FILES:
            writer.put(path, f"{text} {path}".encode())

    return Stage("toy", 1, build)


class Suspended:
    """A writer with the lease and all files of its artifact, whose heartbeat has stopped: it is taken for dead."""

    def __init__(self, url: str):
        self.store = SteppingStore(url)
        self.plan = stage("A").plan(Text(), {}, self.store)
        self.lease = Lease(self.store, self.plan.folder)
        assert self.lease.acquire() is None
        self.writer = ArtifactWriter(
            self.store, self.plan.folder, "toy", 1, self.plan.fingerprint, {}, {}, lease=self.lease
        )
        for path in FILES:
            self.writer.put(path, f"A {path}".encode())
        lease_module._held.discard(self.lease._token)  # known dead to the other one, which is in this process too

    def heartbeat(self) -> None:
        self.lease.send_heartbeat()

    def release(self) -> None:
        self.lease.__exit__(None, None, None)

    def commit(self) -> None:
        self.writer.commit()

    def all_of_it(self) -> None:
        """What it does when it wakes: a heartbeat, then the commit; in any case the release."""
        try:
            self.heartbeat()
            self.commit()
        finally:
            self.release()


WAKES: dict[str, Callable[[Suspended], None]] = {
    "heartbeat": Suspended.heartbeat,
    "release": Suspended.release,
    "commit": Suspended.commit,
    "all": Suspended.all_of_it,
}


EVERY = {"file": 1, "memory": 1, "s3": 9}
"""Which moments are tried: all on local files and on an object store in memory, some on S3, where each takes long."""


@pytest.fixture(params=EVERY)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture
def place(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], str]:
    """URLs of stores by number."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = {"file": str(tmp_path), "memory": f"memory://{tmp_path}"}.get(kind) or request.getfixturevalue("bucket")
    return lambda number: f"{base}/{number}"


def separate_scratch(suspended: Suspended, tmp_path: Path, number: int) -> None:
    """As on another machine, whose scratch folder the one that takes over cannot clear."""
    if not suspended.store.is_local:
        elsewhere = tmp_path / f"elsewhere-{number}"
        suspended.writer.scratch.rename(elsewhere)
        suspended.writer.scratch = elsewhere


def check_finished(store: Store, artifact: Artifact, by: str) -> None:
    found = load(store, artifact.folder)
    assert found is not None and found.manifest == artifact.manifest
    assert damaged_files(found) == []
    assert {path: found.read(path).decode() for path in FILES} == {path: f"{by} {path}" for path in FILES}
    assert [name for name in store.list(artifact.folder) if "/lease-" in name] == []


def wakes_during(life: Callable[[], Artifact], store: SteppingStore, step: int, act: Callable[[], object]) -> Any:
    """The result of a life in the middle of which, before the store's operation `step`, another one acts.

    Returns the life's artifact or error, and what the other one's act gave: a list of its result or error; empty if
    the life had no so many operations.
    """
    acts: list[object] = []

    def before(number: int) -> None:
        if number == step:
            acts.append(attempt(act))

    store.before = before
    return attempt(life), acts


def attempt(act: Callable[[], object]) -> object:
    try:
        return act()
    except HeadwaterError as error:
        return error


@pytest.mark.parametrize(
    ("kind", "wakes"),
    [(kind, name) for kind in EVERY for name in WAKES if kind != "s3" or name == "all"],
    indirect=["kind"],
)
def test_it_wakes_before_each_operation_of_the_one_that_took_over(
    wakes: str, kind: str, place: Callable[[int], str], tmp_path: Path
) -> None:
    for number in itertools.count(1, EVERY[kind]):
        suspended = Suspended(place(number))
        separate_scratch(suspended, tmp_path, number)
        store = SteppingStore(place(number))
        life, woke = wakes_during(
            lambda at=store: stage("B").run(Text(), {}, at), store, number, lambda it=suspended: WAKES[wakes](it)
        )
        assert isinstance(life, Artifact), (number, life)
        by = life.read("a.txt").decode()[0]
        # Until the other one has the lease, it is the only writer; what it finishes then is whole, and used by both.
        assert by == "B" or woke == [None], number
        check_finished(Store(place(number)), life, by)
        if not woke:
            break
    assert number > 15, "every operation of a life was one moment"
    late = attempt(lambda: WAKES[wakes](suspended))
    assert isinstance(late, LeaseHeldError) == (wakes in ("commit", "all"))
    check_finished(Store(place(number)), life, "B")


def test_the_other_one_lives_before_each_operation_of_its_commit(
    kind: str, place: Callable[[int], str], tmp_path: Path
) -> None:
    """It is suspended in the middle of its commit, and wakes when the other one has finished."""
    for number in itertools.count(1, EVERY[kind]):
        suspended = Suspended(place(number))
        separate_scratch(suspended, tmp_path, number)
        store = suspended.store
        error, lives = wakes_during(
            suspended.all_of_it,
            store,
            store.steps + number,
            lambda at=number: stage("B").run(Text(), {}, Store(place(at))),
        )
        if not lives:
            assert error is None
            break
        (finished,) = lives
        assert isinstance(finished, Artifact), (number, finished)
        by = finished.read("a.txt").decode()[0]
        assert (by == "A") == (error is None), (number, error)
        check_finished(Store(place(number)), finished, by)
    assert number > 10


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_the_other_one_lives_before_each_operation_of_its_life(kind: str, place: Callable[[int], str]) -> None:
    """It is suspended anywhere in a stage, also while it clears away what an earlier attempt left."""
    folder = stage("A").plan(Text(), {}, Store(place(0))).folder
    for number in itertools.count(1, EVERY[kind]):
        store = SteppingStore(place(number))
        store.put(f"{folder}/a.txt", b"left by an earlier attempt")

        def live(at: int = number) -> Artifact:
            lease_module._held.clear()  # the first one is known dead to this one
            return stage("B").run(Text(), {}, Store(place(at)))

        first, lives = wakes_during(lambda at=store: stage("A").run(Text(), {}, at), store, store.steps + number, live)
        finished = lives[0] if lives else first
        assert isinstance(finished, Artifact), (number, finished)
        check_finished(Store(place(number)), finished, finished.read("a.txt").decode()[0])
        if not lives:
            break
        assert isinstance(first, HeadwaterError) or first.manifest == finished.manifest, (number, first)
    assert number > 15


class PausedLife:
    """A life in a thread of its own that stops before one operation of its store, until it may go on."""

    def __init__(self, store: SteppingStore, step: int):
        self.result: object = None
        self._paused, self._go_on = threading.Event(), threading.Event()

        def pause(number: int) -> None:
            if number == step:
                self._paused.set()
                self._go_on.wait()

        def live() -> None:
            self.result = attempt(lambda: stage("B").run(Text(), {}, store))
            self._paused.set()

        store.before = pause
        self._thread = threading.Thread(target=live)
        self._thread.start()
        self._paused.wait()

    def finish(self) -> object:
        self._go_on.set()
        self._thread.join()
        return self.result


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("name", ["a.txt", "b/c.txt", "manifest.json"])
def test_it_moves_a_file_while_the_other_one_is_anywhere_in_its_life(
    name: str, place: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspended between its last check and the move itself. On local files the move fails, since its source is gone."""
    monkeypatch.setattr(artifact_module, "COMMIT_THREADS", 1)
    for step in itertools.count(1):
        suspended, others = Suspended(place(step)), []

        def take_over(moved: str, suspended: Suspended = suspended, step: int = step, out: list[Any] = others) -> None:
            if moved.endswith(name) and not out:
                out.append(PausedLife(SteppingStore(suspended.store.url), step))

        suspended.store.before_move = take_over
        error = attempt(suspended.all_of_it)
        (other,) = others
        ended = other.result is not None
        finished = other.finish()
        assert isinstance(finished, Artifact), (step, finished)
        by = finished.read("a.txt").decode()[0]
        assert (by == "A") == (error is None), (step, error)
        check_finished(Store(place(step)), finished, by)
        if ended:
            break
    assert step > 15


def test_a_heartbeat_does_not_create_a_lease_that_was_removed_or_taken(place: Callable[[int], str]) -> None:
    suspended = Suspended(place(0))
    assert suspended.lease.send_heartbeat(), "it is still its own"
    name = f"{suspended.plan.folder}/lease-0"
    suspended.store.remove(name)
    assert not suspended.lease.send_heartbeat()
    assert not suspended.store.exists(name)
    with Lease(suspended.store, suspended.plan.folder) as other:
        assert suspended.store.exists(name), "numbers begin again"
        record = suspended.store.read(name)
        assert not suspended.lease.send_heartbeat()
        with pytest.raises(LeaseHeldError):
            suspended.lease.confirm()
        suspended.release()
        assert suspended.store.read(name) == record
        other.confirm()


@pytest.mark.parametrize("kind", ["file", "s3"], indirect=True)
def test_what_is_replaced_between_reading_and_writing_is_not_rewritten(place: Callable[[int], str]) -> None:
    """The condition holds when it is looked at, and not when the write arrives."""
    store = Store(place(0))
    for replace in (lambda: store.put("x", b"theirs"), lambda: store.remove("x")):
        store.put("x", b"mine")

        def is_own(data: bytes, replace: Callable[[], None] = replace) -> bool:
            replace()
            return data == b"mine"

        changed = store.rewrite("x", b"mine, later", is_own)
        assert not changed or store.is_local, "on local files the write goes into the file that was read"
        assert not store.exists("x") or store.read("x") == b"theirs"


def test_a_file_of_a_finished_artifact_is_not_replaced(place: Callable[[int], str], tmp_path: Path) -> None:
    """Not by a writer without a lease either."""
    store = Store(place(0))
    artifact = stage("B").run(Text(), {}, store)
    writer = ArtifactWriter(store, artifact.folder, "toy", 1, artifact.fingerprint, {}, {})
    writer.put("a.txt", b"late")
    with pytest.raises(HeadwaterError, match="another process committed this artifact first"):
        writer.commit()
    check_finished(store, artifact, "B")
    source = tmp_path / "source"
    source.write_bytes(b"late")
    assert not store.put_file(source, f"{artifact.folder}/a.txt", replace=False)
    assert source.read_bytes() == b"late"
    check_finished(store, artifact, "B")
