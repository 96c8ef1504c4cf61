"""The store's promises: whole objects, exclusive creation, names that stay inside."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import Store, StoreError
from tests.support import ObjectStore


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on local files, and one on S3, which knows neither rename nor append."""
    return Store(tmp_path / "store" if request.param == "file" else request.getfixturevalue("bucket") + "/some/store")


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


def test_create_is_exclusive(store: Store) -> None:
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


def test_an_unwritable_store_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for write in (Store.put, Store.create):
        with pytest.raises(StoreError, match=r"cannot (write|create) .*is a file"):
            write(Store(tmp_path / "file"), "a", b"x")


def test_a_missing_bucket_is_named(object_store: ObjectStore) -> None:
    store = Store("s3://no-such-bucket/store")
    assert not store.exists("a") and store.list("") == [] and list(store.folders("")) == []
    for write in (store.put, store.create):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket/store/a.*bucket does not exist"):
            write("a", b"x")


def test_an_unreachable_store_is_reported_and_works_once_it_is_back(object_store: ObjectStore, bucket: str) -> None:
    store = Store(f"{bucket}/store")
    store.put("a", b"1")
    object_store.stop()
    try:
        for act in (lambda: store.read("a"), lambda: store.create("b", b"2"), lambda: store.list("")):
            with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
                act()
    finally:
        object_store.start()
    assert store.read("a") == b"1"
    assert store.create("b", b"2")


def test_a_creation_whose_answer_was_lost_is_recognized_on_retry(bucket: str) -> None:
    """s3fs retries such a request, and the second finds what the first wrote."""
    store = Store(bucket)
    assert store.create("lease-0", b"mine")
    assert store.create("lease-0", b"mine")
    assert not store.create("lease-0", b"somebody else's")


def test_files_move_in_and_out(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "big"
    local.write_bytes(b"x" * 1000)
    store.put_file(local, "folder/big")
    assert not local.exists()
    store.get_file("folder/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * 1000
    assert store.read_all(["folder/big"]) == [b"x" * 1000]
    store.remove("folder")
    assert store.list("") == []


def test_damaged_json_names_the_file(store: Store) -> None:
    store.put("x.json", b"{")
    with pytest.raises(StoreError, match=r"x\.json is not valid JSON"):
        store.read_json("x.json")


def test_a_listing_is_whole_while_files_come_and_go_beside_it(tmp_path: Path) -> None:
    """A lease must not be overlooked because another process's file vanished while the folder was listed."""
    store, done = Store(tmp_path), threading.Event()
    store.put("folder/lease-0", b"ours")

    def come_and_go() -> None:
        while not done.is_set():
            (tmp_path / "folder" / ".aside.tmp").write_bytes(b"x")
            (tmp_path / "folder" / ".aside.tmp").unlink()

    threads = [threading.Thread(target=come_and_go)]
    for thread in threads:
        thread.start()
    try:
        seen = [store.list("folder") for _ in range(2000)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert all("folder/lease-0" in names for names in seen)


def test_a_creation_whose_temporary_file_was_removed_is_retried(tmp_path: Path, monkeypatch) -> None:
    """The holder of the lease removes the files of dead writers, and cannot distinguish those of a living one."""
    store, link, tidied = Store(tmp_path), os.link, []

    def tidy_first(aside: str, path: str) -> None:
        if not tidied:
            tidied.append(aside)
            os.unlink(aside)
        link(aside, path)

    monkeypatch.setattr(os, "link", tidy_first)
    assert store.create("folder/lease-0", b"mine")
    assert tidied and store.read("folder/lease-0") == b"mine"
    assert not store.create("folder/lease-0", b"another's")
