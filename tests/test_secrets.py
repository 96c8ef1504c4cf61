"""The scan for secrets finds each that is there, in every kind of file, and nothing else."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.secrets import find_secrets

SECRET = "wJalr/XUtnFEMI+K7MDENG é"
OTHER = "another-secret-1234"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def zipped(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", data)
    return target.getvalue()


TEXTS = {
    "plain": f"password={SECRET}",
    "UTF-8 in JSON": json.dumps({"a": SECRET}, ensure_ascii=False),
    "percent-encoded": f"https://me:{quote(SECRET, safe='')}@host",
    "lower-case percent-encoded": quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "percent-encoded twice": quote(quote(SECRET, safe=""), safe=""),
    "hex digits": SECRET.encode().hex(),
    **{f"base64 after {n}": base64.b64encode(b"u" * n + SECRET.encode() + b"z").decode() for n in range(4)},
    "URL-safe base64": base64.urlsafe_b64encode(b"ab:" + SECRET.encode()).decode(),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "ZIP": zipped,
    "gzip in ZIP": lambda data: zipped(gzip.compress(data)),
}


@pytest.mark.parametrize("form", TEXTS)
def test_a_secret_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "log.txt").write_text(f"before {TEXTS[form]} after")
    found = find_secrets(tmp_path, [OTHER, SECRET])
    assert found and all(line.startswith("sub/log.txt: secret 1 ") for line in found)
    assert SECRET not in str(found)


def test_utf_16_and_names_and_links_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" + OTHER.encode("utf-16-le"))
    (tmp_path / f"run-{OTHER}").mkdir()
    (tmp_path / "link").symlink_to(f"/nowhere/{OTHER}")
    assert find_secrets(tmp_path, [OTHER]) == [
        "a.bin: secret 0 in UTF-16",
        "link: secret 0 as it is (target of the link)",
        f"run-{OTHER}: secret 0 as it is (name)",
    ]


@pytest.mark.parametrize("kind", PACKED)
def test_compressed_files_are_opened_whatever_their_names(tmp_path: Path, kind: str) -> None:
    filler = " ".join(f"number {n} is not {n * n}" for n in range(500))
    text = f"{filler}{SECRET}{filler}".encode()
    packed = PACKED[kind](text)
    assert SECRET.encode() not in packed
    (tmp_path / "data").write_bytes(packed)
    assert any("secret 0 as it is (in" in line for line in find_secrets(tmp_path, [SECRET]))
    (tmp_path / "data").write_bytes(PACKED[kind](b"nothing " * 100))
    assert find_secrets(tmp_path, [SECRET]) == []


def test_a_truncated_archive_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data.gz").write_bytes(gzip.compress(os.urandom(1000))[:-20])
    (tmp_path / "data.zip").write_bytes(zipped(b"x" * 100)[:-30])
    found = find_secrets(tmp_path, [SECRET])
    assert [line.partition(",")[0] for line in found] == ["data.gz: looks like gzip", "data.zip: looks like ZIP"]


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_databases_are_read_though_a_writer_has_them_open(tmp_path: Path, journal: str) -> None:
    long = "x" * 20_000  # in several pages
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
        database.execute('CREATE TABLE "flow ""run" (id INTEGER, parameters TEXT, body BLOB)')
        database.execute('INSERT INTO "flow ""run" VALUES (1, ?, ?)', (long, long.encode()))
        database.commit()
        assert find_secrets(tmp_path, [SECRET]) == []
        # Exactly where a page ends the bytes of the secret are apart.
        database.executemany(
            'INSERT INTO "flow ""run" VALUES (2, ?, ?)', [("y" * n + SECRET, b"") for n in range(3000, 9000, 7)]
        )
        database.commit()
        found = find_secrets(tmp_path, [SECRET])
    assert "prefect.db: secret 0 as it is (in SQLite's table flow \"run)" in found


def test_parquet_is_read_whatever_its_codec_and_nesting(tmp_path: Path) -> None:
    for codec in ("none", "snappy", "gzip", "zstd"):
        table = pa.table({"text": ["a"] * 50 + [f"{'b' * 100}{SECRET}"], "n": list(range(51))})
        pq.write_table(table, tmp_path / "a.parquet", compression=codec)
        nested = pa.table({"steps": [[{"uri": f"s3://x:{SECRET}@y"}], []], "hash": [OTHER.encode(), b""]})
        pq.write_table(nested, tmp_path / "b.parquet", compression=codec)
        found = find_secrets(tmp_path, [SECRET, OTHER])
        assert "a.parquet: secret 0 as it is (in Parquet's column text)" in found
        assert "b.parquet: secret 0 as it is (in Parquet's column steps)" in found
        assert "b.parquet: secret 1 as it is (in Parquet's column hash)" in found
    pq.write_table(table.drop_columns("text").replace_schema_metadata({"url": SECRET}), tmp_path / "a.parquet")
    assert any(line.startswith("a.parquet: secret 0") for line in find_secrets(tmp_path, [SECRET]))


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_arrow_files_are_read_whatever_their_codec(tmp_path: Path, codec: str | None) -> None:
    table = pa.table({"text": [f"{'b' * 1000}{SECRET}{'b' * 1000}"], "tokens": [[1, 2]]})
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_file(tmp_path / "chunk.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    assert "chunk.arrow: secret 0 as it is (in Arrow's column text)" in find_secrets(tmp_path, [SECRET])


def test_a_folder_without_secrets_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "weights.bin").write_bytes(os.urandom(1 << 20))
    os.mkfifo(tmp_path / "pipe")
    assert find_secrets(tmp_path, [SECRET, OTHER]) == []
    with pytest.raises(ValueError, match="secret 0 has 3 characters"):
        find_secrets(tmp_path, ["abc"])
