"""The store's promises: whole objects, exclusive creation, names that stay inside."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifact import Store, StoreError


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A local store, and one that behaves like an object store (no rename, no append)."""
    return Store(tmp_path / "store") if request.param == "file" else Store(f"memory://{tmp_path.name}")


def test_put_replaces_whole_objects(store: Store) -> None:
    store.put("a/b", b"first, longer")
    store.put("a/b", b"second")
    assert store.read("a/b") == b"second"
    assert store.size("a/b") == 6
    assert store.list("a") == ["a/b"]


def test_missing_objects(store: Store) -> None:
    assert not store.exists("nothing")
    assert store.size("nothing") is None
    assert store.list("nothing") == []
    assert list(store.folders("nothing")) == []
    with pytest.raises(FileNotFoundError):
        store.read("nothing")


def test_create_is_exclusive(tmp_path: Path) -> None:
    store = Store(tmp_path)
    results: list[tuple[bool, bytes]] = []

    def attempt(number: int) -> None:
        data = str(number).encode()
        results.append((store.create("one", data), data))

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [data for won, data in results if won]
    assert len(winners) == 1
    assert store.read("one") == winners[0]
    assert store.list("") == ["one"], "nothing is left aside"


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "c"]), min_size=1, max_size=4).map("/".join))
def test_names_never_leave_the_store(name: str) -> None:
    store = Store("memory://inside")
    if ".." in name.split("/"):
        with pytest.raises(StoreError, match="not a name inside"):
            store.path(name)
    else:
        assert store.path(name).startswith(store.root)


def test_absolute_names_and_relative_stores_are_refused() -> None:
    with pytest.raises(StoreError, match="not a name inside"):
        Store("memory://inside").read("/etc/passwd")
    with pytest.raises(StoreError, match="relative path"):
        Store("some/folder")


def test_unwritable_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "file").put("a", b"x")


def test_damaged_json_names_the_file(store: Store) -> None:
    store.put("x.json", b"{")
    with pytest.raises(StoreError, match=r"x\.json is not valid JSON"):
        store.read_json("x.json")
