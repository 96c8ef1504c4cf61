"""Listings: content is what, location is how."""

from __future__ import annotations

import functools
import http.server
import os
import random
import shutil
import threading
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus import ListedFile, Listing, list_files
from stages.corpus.reading import listing as listing_module
from stages.store import InputError, hashing
from tests.support import examples


@given(
    st.lists(
        st.tuples(st.text("abc/", min_size=1, max_size=5), st.integers(0, 9), st.text("0f", min_size=2, max_size=2)),
        unique_by=lambda item: item[0],
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_digest_is_of_content_not_of_place_or_order(files: list[tuple[str, int, str]], rng: random.Random) -> None:
    listed = [ListedFile(*file) for file in files]
    mixed = rng.sample(listed, len(listed))
    assert Listing("/a", tuple(listed)).digest == Listing("s3://b/c", tuple(mixed)).digest
    changed = ListedFile(listed[0].name, listed[0].bytes + 1, listed[0].sha256)
    assert Listing("/a", (changed, *listed[1:])).digest != Listing("/a", tuple(listed)).digest


def test_names_are_relative_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", ".hidden", ".git/x.txt", "a/d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [f.name for f in list_files(tmp_path).files] == ["a/c.txt", "a/d.md", "b.txt"]
    listing = list_files(tmp_path, ["*.txt"])
    assert [f.name for f in listing.files] == ["a/c.txt", "b.txt"]
    assert listing.open("a/c.txt").read() == b"a/c.txt"
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    shutil.copytree(tmp_path, moved)
    assert list_files(moved, ["*.txt"]).digest == listing.digest


def test_one_file_is_a_listing_too(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text("{}")
    listing = list_files(tmp_path / "one.jsonl")
    assert [f.name for f in listing.files] == ["one.jsonl"]
    assert listing.path("one.jsonl") == str(tmp_path / "one.jsonl")


def test_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"same")
    memory = fsspec.filesystem("memory")
    memory.pipe("/listing/in/x.txt", b"same")
    there = list_files("memory://listing/in")
    assert there.digest == list_files(tmp_path).digest
    assert there.open("x.txt").read() == b"same"


@pytest.mark.parametrize("what", ["missing", "empty", "hidden", "other"])
def test_nothing_to_list_is_an_input_error(tmp_path: Path, what: str) -> None:
    place = tmp_path / "in"
    if what != "missing":
        place.mkdir()
    if what == "hidden":
        (place / ".x").write_text("")
    if what == "other":
        (place / "x.pdf").write_text("")
    wanted = {"missing": "does not exist", "empty": "empty folder", "hidden": "hidden", "other": r"x\.pdf"}[what]
    with pytest.raises(InputError, match=wanted) as error:
        list_files(place, ["*.txt"] if what == "other" else None)
    assert str(place) in str(error.value)


def test_a_web_server_that_tells_neither_size_nor_mark(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.txt").write_bytes(b"same")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for place in ("in", "in/", "in/x.txt"):
                there = list_files(f"http://127.0.0.1:{server.server_port}/{place}")
                assert there.digest == list_files(tmp_path / "in").digest
                assert there.open("x.txt").read() == b"same"
        finally:
            server.shutdown()
            thread.join()


def test_hashes_of_large_files_are_remembered_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashing, "MIN_CACHED_BYTES", 3)
    file = tmp_path / "in" / "x.bin"
    file.parent.mkdir()
    file.write_bytes(b"first")
    os.utime(file, (1, 1))
    first = list_files(file.parent)
    assert len(list((tmp_path / "cache").rglob("*"))) == 3  # two folders, one hash
    assert list_files(file.parent) == first
    file.write_bytes(b"other")
    assert list_files(file.parent).digest != first.digest


@examples(20)
@given(st.binary(max_size=50))
def test_sha256_is_that_of_the_bytes(data: bytes) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/hash/x", data)
    import hashlib

    assert list_files("memory://hash/x").files[0].sha256 == hashlib.sha256(data).hexdigest()


def test_a_file_that_changed_after_the_listing_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"first")
    listing = list_files(tmp_path)
    os.utime(tmp_path / "x.txt", (1, 1))
    assert listing.open("x.txt").read() == b"first", "its content is the same"
    for content in (b"longer", b"other"):
        (tmp_path / "x.txt").write_bytes(content)
        os.utime(tmp_path / "x.txt", (1, 1))
        with pytest.raises(InputError, match=r"^\S+x\.txt has changed since .*any more$"):
            listing.open("x.txt")


def test_a_remote_file_that_changed_after_the_listing_is_not_read(bucket: str) -> None:
    fs, root = fsspec.core.url_to_fs(bucket)
    fs.pipe_file(f"{root}/changed/x.txt", b"first")
    listing = list_files(f"{bucket}/changed")
    fs.pipe_file(f"{root}/changed/x.txt", b"other")
    with pytest.raises(InputError, match=r"^\S+x\.txt has changed since .*any more$"):
        listing.open("x.txt")


def test_a_file_that_became_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"text")
    listing = list_files(tmp_path)
    (tmp_path / "x.txt").unlink()
    os.mkfifo(tmp_path / "x.txt")
    with pytest.raises(InputError, match="named pipe"):
        listing.open("x.txt")


@pytest.mark.parametrize("location", [f"/tmp/{'a' * 300}", "zip://x"])
def test_a_location_that_cannot_be_opened_is_an_input_error(location: str) -> None:
    with pytest.raises(InputError, match="cannot be"):
        list_files(location)


def test_a_file_that_a_pattern_names_exactly_is_meant_alone(tmp_path: Path) -> None:
    for name in ("A.txt", "a.txt", "[b].txt", "C.txt"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in list_files(tmp_path, ["/A.txt"]).files] == ["A.txt"]
    assert [file.name for file in list_files(tmp_path, ["/[[]b].txt", "/c.TXT"]).files] == ["C.txt", "[b].txt"]


def test_names_as_patterns_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.txt" for number in range(100)]
    for name in names:
        (tmp_path / name).write_text(name)
    compiled = []
    monkeypatch.setattr(listing_module, "translate", lambda part: compiled.append(part) or "x")
    assert len(list_files(tmp_path, [f"/{name}" for name in names]).files) == 100
    assert not compiled
    with pytest.raises(InputError, match="has no"):
        list_files(tmp_path, ["*.jsonl"])
    assert compiled == ["*.jsonl"], "not once for each file"
