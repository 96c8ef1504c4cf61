"""Parts: whole or not there, found again after a kill, and read at any place as one stream."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifact import Artifact, ArtifactWriter, InputError, Store, all_artifacts
from stages.tokens import TokensConfig, encode, stream, tokens
from stages.tokens.parts import Part, PartedStream, find_part, write_part
from stages.tokens.stream import DocumentFiles, StreamFormat, document_files, with_ends
from tests.stages.tokens.conftest import Text, table, write_corpus

KEY = b"k" * 16
FORM = StreamFormat(8, 4, 1000, 7, "<end>")


class Bytes:
    """An encoder that needs no library: a byte is its own id, and 7 is the end."""

    name = "bytes"

    def encode(self, texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
        found = [text.encode() for text in texts.to_pylist()]
        offsets = np.cumsum([0, *map(len, found)]).astype(np.int64)
        return np.frombuffer(b"".join(found), np.uint8).astype(np.uint32), offsets


def source(folder: Path, texts: list[str], a_file: int = 3) -> DocumentFiles:
    (files,) = document_files(write_corpus(folder, {"a": texts}, {}, a_file), "documents")
    return files


def written(folder: Path, files: DocumentFiles) -> list[Part]:
    parts = enumerate(files.parts)
    return [write_part(folder / f"{n}.part", KEY, files, groups, Bytes(), FORM) for n, groups in parts]


@given(st.lists(st.lists(st.integers(0, 70_000), max_size=5), max_size=8), st.sampled_from([np.uint16, np.uint32]))
def test_an_end_stands_behind_every_document(documents: list[list[int]], dtype: type) -> None:
    documents = [[min(token, np.iinfo(dtype).max) for token in document] for document in documents]
    ids = np.array([token for document in documents for token in document], np.uint32)
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    found = with_ends(ids, offsets, 9, np.dtype(dtype))
    assert found.dtype == dtype
    assert found.tolist() == [token for document in documents for token in [*document, 9]]


def test_a_stream_in_parts_is_read_at_any_place(tmp_path: Path) -> None:
    texts = ["one", "", "three and more", "four", "", "", "", "x" * 50]
    files = source(tmp_path / "store", texts)
    parts = written(tmp_path, files)
    assert len(parts) == 3
    whole = np.concatenate([np.append(np.frombuffer(text.encode(), np.uint8), 7) for text in texts]).astype(np.uint16)
    whole_stream = PartedStream(parts)
    assert whole_stream.tokens == len(whole)
    for first in range(len(whole)):
        for count in (0, 1, 5, len(whole) - first):
            out = np.zeros(min(count, len(whole) - first), np.uint16)
            whole_stream.read(first, out)
            assert (out == whole[first : first + len(out)]).all()
    lines = pa.concat_tables([part.lines() for part in parts]).to_pylist()
    assert [line["length"] for line in lines] == [line["bytes"] for line in lines] == [len(text) for text in texts]
    assert [line["uri"] for line in lines] == [f"a.jsonl#record={n}" for n in range(len(texts))]
    assert sum(part.text_bytes for part in parts) == sum(len(text) for text in texts)


def test_only_a_whole_part_of_the_same_plan_is_found(tmp_path: Path) -> None:
    files = source(tmp_path / "store", ["some text"] * 3)
    (part,) = written(tmp_path, files)
    assert find_part(part.path, KEY) == part
    assert find_part(part.path, b"o" * 16) is None and find_part(tmp_path / "none", KEY) is None
    content = part.path.read_bytes()
    for damaged in (
        *(content[:size] for size in (0, 1, len(content) // 2, len(content) - 1)),
        *(
            content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            for place in (0, 9, 31, len(content) - 5)
        ),
        content + b"\0",
        bytes(len(content)),
    ):
        part.path.write_bytes(damaged)
        assert find_part(part.path, KEY) is None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["0.part"]


def test_parts_follow_from_the_corpus_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["x" * 1000] * 1000
    files = source(tmp_path, texts, a_file=600)
    assert [(part.groups.start, part.groups.stop, part.rows) for part in files.parts] == [(0, 10, 600), (0, 7, 400)]
    monkeypatch.setattr(stream, "PART_BYTES", 2000)
    smaller = source(tmp_path / "again", texts, a_file=600)
    assert sum(part.rows for part in smaller.parts) == 1000 and len(smaller.parts) > 2
    assert [part.rows for part in smaller.parts] == [part.rows for part in source(tmp_path / "b", texts, 600).parts]


def test_what_is_held_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH_BYTES", 10_000)
    files = source(tmp_path, [f"{n} " * 1000 for n in range(40)], a_file=40)
    sizes = [batch.column("text").nbytes for part in files.parts for batch in files.read(part)]
    assert len(sizes) > 3 and max(sizes) < 60_000


def test_text_that_becomes_an_end_is_refused_with_its_document(tmp_path: Path) -> None:
    files = source(tmp_path / "store", ["fine", "bad \x07 bad", "fine"])
    with pytest.raises(InputError, match=r"own end of text \(<end>\), first in document a.jsonl#record=1"):
        written(tmp_path, files)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    small = StreamFormat(8, 4, 100, 7, "<end>")
    with pytest.raises(InputError, match="gives id 110, and has 100 tokens"):
        write_part(tmp_path / "x", KEY, files, files.parts[0], Bytes(), small)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    texts = [random.Random(n).randbytes(500).hex() for n in range(60)]
    pq.write_table(table("a", texts, 0), tmp_path / "whole", row_group_size=20, compression="zstd")
    whole = (tmp_path / "whole").read_bytes()
    middle = len(whole) // 2
    for number, content in enumerate((b"", whole[:middle], whole[:middle] + bytes(2000) + whole[middle + 2000 :])):
        writer = ArtifactWriter(Store(tmp_path / "s"), f"corpus/{number:016}", "corpus", 1, str(number) * 32, {}, {})
        writer.file("documents/a/00007.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"documents/a/00007.parquet cannot be read"):
            tokens.run(TokensConfig(vocabulary=300), {"corpus": writer.commit()}, Store(tmp_path / "s"))


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.artifact import Store
from stages.tokens import encode, tokens
from tests.stages.tokens.conftest import CONFIG, DOCUMENTS, HELDOUT, write_corpus

real, left = getattr(encode, sys.argv[2]), [int(sys.argv[3])]

def kill(*args):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

setattr(encode, sys.argv[2], kill)
store = Path(sys.argv[1])
corpus = write_corpus(store, DOCUMENTS, HELDOUT)
tokens.run(CONFIG.model_copy(update={"workers": 1}), {"corpus": corpus}, Store(store))
"""


@pytest.mark.parametrize(("function", "calls", "kept"), [("write_part", 4, 4), ("write_shard", 5, 6)])
def test_a_killed_run_goes_on_behind_its_last_part(
    made: Artifact,
    config: TokensConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    calls: int,
    kept: int,
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), function, str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = Store(tmp_path)
    (corpus,) = all_artifacts(store, "corpus")
    (torn, *_) = sorted((tmp_path / "tokens").rglob("*.part"))[1:]
    torn.write_bytes(torn.read_bytes()[:-100])
    again: list[str] = []
    real = encode.write_part

    def counted(path: Path, *args: object) -> Part:
        again.append(path.name)
        return real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(encode, "write_part", counted)
    artifact = tokens.run(config.model_copy(update={"workers": 2}), {"corpus": corpus}, store)
    assert artifact.digest == made.digest
    told = [event for event in artifact.events().read()[0] if event["type"] == "parts"][-1]
    assert (told["parts"], told["found"]) == (6, kept - 1) and len(again) == 6 - (kept - 1)
    assert [name for name in store.list("tokens") if ".part" in name or ".scratch" in name] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_that_failed_keeps_its_parts_and_says_why(
    documents: Text, config: TokensConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    corpus = write_corpus(tmp_path, documents, {})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "shards/abstracts/00000.arrow")

    monkeypatch.setattr(encode, "write_shard", full)
    with pytest.raises(Exception, match=r"No space left.*make room there and start again: what is finished is kept"):
        tokens.run(config.model_copy(update={"workers": workers}), {"corpus": corpus}, Store(tmp_path))
    assert len([*(tmp_path / "tokens").rglob("*.part")]) == 5
    monkeypatch.undo()
    artifact = tokens.run(config, {"corpus": corpus}, Store(tmp_path))
    assert [event["found"] for event in artifact.events().read()[0] if event["type"] == "parts"] == [0, 5]
