"""Looks for planted secrets in everything that a run leaves behind."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import mmap
import shutil
import sqlite3
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq

MINIMUM_CHARACTERS = 12
"""Shorter secrets would be found by chance in weights and compressed files."""
MAXIMUM_DEPTH = 4
"""Archives in archives that are opened."""

_MAGIC = {
    "SQLite": b"SQLite format 3\0",
    "Parquet": b"PAR1",
    "Arrow": b"ARROW1",
    "ZIP": b"PK\x03\x04",
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\0",
}
"""First bytes by kind of file; names say nothing."""
_SQLITE_FILES = ("", "-wal", "-journal")


def find_secrets(folder: Path, secrets: Sequence[str]) -> list[str]:
    """Places below a folder where a secret is written: in names, bytes, SQLite tables, Parquet and compressed files.

    Each secret is looked for as it is, in UTF-16, in base64 (also within a longer text), percent-encoded and in hex
    digits. What looks compressed but cannot be read is reported, too, since nobody knows what is in it.

    Args:
        folder: all files below it are read; links are not followed, but their targets' names are looked at.
        secrets: of at least MINIMUM_CHARACTERS characters.

    Returns:
        A line for each file, secret and form. It names the secret by its number in `secrets`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a secret is too short.
    """
    patterns: list[tuple[str, bytes]] = []
    for number, secret in enumerate(secrets):
        if len(secret) < MINIMUM_CHARACTERS:
            raise ValueError(f"secret {number} has {len(secret)} characters; plant one of {MINIMUM_CHARACTERS} or more")
        forms = {found: form for form, found in reversed(list(_forms(secret)))}  # of equal ones the first is named
        patterns += [(f"secret {number} {form}", found) for found, form in reversed(forms.items())]
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found += [f"{name}: {label} (name)" for label in _labels(name.encode(errors="surrogateescape"), patterns)]
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            target = str(path.readlink()).encode(errors="surrogateescape")
            found += [f"{name}: {label} (target of the link)" for label in _labels(target, patterns)]
        elif stat.S_ISREG(mode) and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found += [f"{name}: {line}" for line in _in_bytes(content, patterns, path, 0)]
    return list(dict.fromkeys(found))


def _forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """The ways in which a secret may be written."""
    plain = secret.encode()
    yield "as it is", plain
    yield "in UTF-16", secret.encode("utf-16-le")
    yield "in hex digits", plain.hex().encode()
    for encode in (quote, quote_plus):
        for text in (encode(secret, safe=""), encode(secret), encode(encode(secret, safe=""), safe="")):
            yield "percent-encoded", text.encode()
            yield "percent-encoded", text.replace("%2F", "%2f").replace("%2B", "%2b").encode()
    for encode_bytes in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):  # a text before it shifts its bits by 0, 2 or 4
            # The first and the last letters have bits of what stands before and after.
            first, length = -(-before * 8 // 6), (before + len(plain)) * 8 // 6
            yield "in base64", encode_bytes(bytes(before) + plain)[first:length]


def _labels(content: Any, patterns: Sequence[tuple[str, bytes]]) -> list[str]:
    return [label for label, pattern in patterns if content.find(pattern) >= 0]


def _in_bytes(content: Any, patterns: Sequence[tuple[str, bytes]], path: Path | None, depth: int) -> Iterator[str]:
    """Lines about the content of a file, and of what is inside it."""
    yield from _labels(content, patterns)
    head = bytes(content[:16])
    kind = next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        return
    try:
        if depth == MAXIMUM_DEPTH:
            raise ValueError(f"more than {MAXIMUM_DEPTH} levels")
        for name, inner in _inside(kind, content, path):
            for line in _in_bytes(inner, patterns, None, depth + 1):
                yield f"{line} ({name})" if line in {label for label, _ in patterns} else line
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, sqlite3.Error) as error:
        yield f"looks like {kind}, but cannot be read: {error}"


def _inside(kind: str, content: Any, path: Path | None) -> Iterator[tuple[str, bytes]]:
    """What is inside of a file: (how it was found, bytes)."""
    if kind == "SQLite":
        yield from _tables(content, path)
    elif kind == "Parquet":
        with pq.ParquetFile(pa.BufferReader(content[:])) as parquet:
            yield "in Parquet's metadata", str(parquet.schema_arrow.metadata).encode()
            yield from _columns(kind, parquet.schema_arrow, parquet.iter_batches(batch_size=1024))
    elif kind == "Arrow":
        with pa.ipc.open_file(pa.BufferReader(content[:])) as arrow:
            batches = (arrow.get_batch(number) for number in range(arrow.num_record_batches))
            yield from _columns(kind, arrow.schema, batches)
    elif kind == "ZIP":
        with zipfile.ZipFile(io.BytesIO(content[:])) as archive:
            for entry in archive.infolist():
                yield f"name in {kind}", entry.filename.encode()
                yield f"in {kind}", archive.read(entry)
    elif kind == "zstd":
        yield f"in {kind}", _unzstd(content[:])
    else:
        decompress = {"gzip": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress}[kind]
        yield f"in {kind}", decompress(content[:])


def _unzstd(data: bytes) -> bytes:
    """All frames of a zstd file."""
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        return bytes(stream.read())


def _columns(kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, bytes]]:
    """Every value of the columns that have texts or bytes."""
    names = [column.name for column in schema if _has_text(column.type)]
    for batch in batches if names else ():
        for name in names:
            for value in batch.column(name).to_pylist():
                yield f"in {kind}'s column {name}", _to_bytes(value)


def _has_text(kind: pa.DataType) -> bool:
    """Whether values of this type have texts or bytes in them. Millions of token ids have none."""
    if pa.types.is_dictionary(kind):
        return _has_text(kind.value_type)
    if pa.types.is_nested(kind):
        return any(_has_text(kind.field(number).type) for number in range(kind.num_fields))
    return not (pa.types.is_primitive(kind) or pa.types.is_null(kind))


def _tables(content: Any, path: Path | None) -> Iterator[tuple[str, bytes]]:
    """Every value of a SQLite database with its log of writes: long ones are in several pages, so not found as bytes.

    A copy is read, since a server may be writing to the database.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db")
        if path is None:
            copy.write_bytes(content[:])
        else:
            for suffix in _SQLITE_FILES:
                if (source := Path(f"{path}{suffix}")).exists():
                    shutil.copyfile(source, f"{copy}{suffix}")
        with closing(sqlite3.connect(copy)) as database:
            database.text_factory = bytes
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            for (name,) in rows.fetchall():
                table = name.decode()
                quoted = table.replace('"', '""')
                for row in database.execute(f'SELECT * FROM "{quoted}"'):
                    for value in row:
                        yield f"in SQLite's table {table}", _to_bytes(value)


def _to_bytes(value: Any) -> bytes:
    """A value of a table as bytes; of a nested one all strings and bytes, one after the other."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, dict):
        return b"\0".join(_to_bytes(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return b"\0".join(map(_to_bytes, value))
    return b""
