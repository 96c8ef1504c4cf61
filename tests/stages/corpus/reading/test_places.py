"""Paths and URLs are told apart, whatever characters a name has."""

from __future__ import annotations

import fsspec
import pytest

from stages.corpus.reading.places import filesystem, local_path


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/a::b.txt", "/data/a::b.txt"),
        ("/data/s3://x", "/data/s3:/x"),
        ("file:///data/a%20b#c?d", "/data/a%20b#c?d"),
        ("local:///data/a::b", "/data/a::b"),
        ("s3://bucket/a::b", None),
        ("simplecache::s3://bucket/a", None),
    ],
)
def test_paths_of_this_machine(location: str, path: str | None) -> None:
    assert local_path(location) == path


def test_colons_in_a_name_chain_nothing_unless_a_url_follows() -> None:
    fs, root = filesystem("s3://bucket/a::b")
    assert "s3" in fs.protocol and root == "bucket/a::b"
    assert filesystem("memory://in/a") == fsspec.core.url_to_fs("memory://in/a")
    fsspec.filesystem("memory").pipe("/chained/x.txt", b"1")
    fs, root = filesystem("simplecache::memory://chained")
    assert type(fs).__name__ == "SimpleCacheFileSystem" and root == "/chained"
    with pytest.raises(ValueError, match="nowhere"):
        filesystem("nowhere://a::b")
