"""Parts: complete or missing, found after a kill, with their tokens at their places in the stream."""

from __future__ import annotations

import hashlib
import itertools
import random
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import Artifact, ArtifactWriter, InputError, Store, all_artifacts
from stages.tokens import TokensConfig, encode, stream, tokenizer, tokens
from stages.tokens.parts import EncodedStream, Part, encode_part, find_part, write_part
from stages.tokens.shard_files import ShardFiles
from stages.tokens.stream import DocumentFiles, StreamFormat, append_eos, document_files
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


def written(folder: Path, files: DocumentFiles, form: StreamFormat = FORM) -> EncodedStream:
    """All parts of a source, the last one first."""
    shards = ShardFiles(folder / "shards", form)
    shards.folder.mkdir()
    encoded = [encode_part(files, groups, Bytes(), form) for groups in files.parts]
    starts = np.cumsum([0, *(part.count for part in encoded)]).tolist()
    parts = [
        write_part(folder / f"{n}.part", KEY, starts[n], part, shards) for n, part in reversed([*enumerate(encoded)])
    ]
    return EncodedStream(parts[::-1], shards)


@given(st.lists(st.lists(st.integers(0, 70_000), max_size=5), max_size=8), st.sampled_from([np.uint16, np.uint32]))
def test_every_document_is_followed_by_an_end(documents: list[list[int]], dtype: type) -> None:
    documents = [[min(token, np.iinfo(dtype).max) for token in document] for document in documents]
    ids = np.array([token for document in documents for token in document], np.uint32)
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    found = append_eos(ids, offsets, 9, np.dtype(dtype))
    assert found.dtype == dtype
    assert found.tolist() == [token for document in documents for token in [*document, 9]]


def test_tokens_of_all_parts_are_consecutive(tmp_path: Path) -> None:
    texts = ["one", "", "three and more", "four", "", "", "", "x" * 50]
    stream = written(tmp_path, source(tmp_path / "store", texts))
    assert len(stream.parts) == 3
    whole = np.concatenate([np.append(np.frombuffer(text.encode(), np.uint8), 7) for text in texts]).astype(np.uint16)
    assert stream.tokens == len(whole)
    for first in range(len(whole)):
        for count in (0, 1, 5, len(whole) - first):
            found = b"".join(stream.shards.read(first, min(count, len(whole) - first), chunk_bytes=7))
            assert found == whole[first : first + count].tobytes()
    lines = pa.concat_tables([part.lines() for part in stream.parts]).to_pylist()
    assert [line["length"] for line in lines] == [line["bytes"] for line in lines] == [len(text) for text in texts]
    assert [line["uri"] for line in lines] == [f"a.jsonl#record={n}" for n in range(len(texts))]
    assert stream.text_bytes == sum(len(text) for text in texts)


@given(
    st.integers(1, 200),
    st.sampled_from([(1, 1), (7, 3), (8, 4), (5, 16)]),
    st.sampled_from([256, 1 << 17]),
    st.lists(st.integers(1, 199), max_size=5),
    st.randoms(use_true_random=False),
)
def test_shards_written_in_ranges_are_the_bytes_that_arrow_writes(
    tokens: int, sizes: tuple[int, int], vocabulary: int, cuts: list[int], random: random.Random
) -> None:
    sequence, rows = sizes
    form = StreamFormat(sequence, rows, vocabulary, 7, "<end>")
    whole = np.arange(100, 100 + tokens).astype(form.dtype)
    bounds = sorted({0, tokens, *(cut for cut in cuts if cut < tokens)})
    pieces = [*itertools.pairwise(bounds)]
    random.shuffle(pieces)
    with tempfile.TemporaryDirectory() as folder:
        files = ShardFiles(Path(folder), form)
        for first, end in pieces:
            files.write(first, whole[first:end])
        padded = np.full((-(-tokens // sequence), sequence), 7, form.dtype)
        padded.reshape(-1)[:tokens] = whole
        for number in range(files.count(tokens)):
            here = padded[number * rows : (number + 1) * rows]
            column = pa.FixedSizeListArray.from_arrays(pa.array(here.reshape(-1)), sequence)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, pa.schema([("tokens", column.type)])) as writer:
                writer.write_batch(pa.record_batch([column], names=["tokens"]))
            content = sink.getvalue().to_pybytes()
            left = min(tokens - number * rows * sequence, here.size)
            expected = (number, len(here), left, len(content), hashlib.sha256(content).hexdigest())
            for _ in range(2):  # finishing a finished shard changes nothing
                assert tuple(files.finish(number, tokens).values()) == expected
                assert files.path(number).read_bytes() == content
        assert len([*Path(folder).iterdir()]) == files.count(tokens)


def test_only_a_whole_part_of_the_same_plan_is_found(tmp_path: Path) -> None:
    files = source(tmp_path / "store", ["some text"] * 3)
    stream = written(tmp_path, files)
    (part,), shards = stream.parts, stream.shards
    assert find_part(part.path, KEY, shards) == part
    assert find_part(part.path, b"o" * 16, shards) is None and find_part(tmp_path / "none", KEY, shards) is None
    for path in (part.path, shards.path(0)):
        content = path.read_bytes()
        damaged = [content[:size] for size in (0, 1, len(content) // 2, len(content) - 1)]
        places = [len(content) - 5, len(content) - 50] + [0, 9, 31] * (path == part.path)
        damaged += [content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] for place in places]
        damaged += [bytes(len(content))] + [content + b"\0"] * (path == part.path)
        for wrong in damaged:
            path.write_bytes(wrong)
            assert find_part(part.path, KEY, shards) is None, (path, wrong)
        path.unlink()
        assert find_part(part.path, KEY, shards) is None
        path.write_bytes(content)
        assert find_part(part.path, KEY, shards) == part
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["0.part"]


def test_a_part_at_another_place_is_rebuilt(tmp_path: Path) -> None:
    files = source(tmp_path / "store", ["some text"] * 3)
    stream = written(tmp_path, files)
    (old,), (groups,) = stream.parts, files.parts
    for first, expected_found in ((0, True), (3, False), (3, True)):
        start, end = Future[int](), Future[int]()
        start.set_result(first)
        encoded = partial(encode_part, files, groups, Bytes(), FORM)
        part, found = encode._part(old.path, KEY, encoded, stream.shards, start, end)
        assert (found, part.start, end.result()) == (expected_found, first, first + old.count)
        assert b"".join(stream.shards.read(first + 5, 4)) == b"t\0e\0x\0t\0"


@pytest.mark.parametrize("failing", [0, 2])
def test_a_part_that_fails_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    texts = [f"text {n}" for n in range(30)]
    texts[3 * failing] = "bad \x07 bad"
    (tmp_path / "corpus").mkdir()
    files = source(tmp_path / "corpus", texts)
    writer = ArtifactWriter(Store(tmp_path / "store"), "tokens/0", "tokens", 1, "0" * 32, {}, {})
    with pytest.raises(InputError, match="as its end of text"):
        encode.encode_sources([encode.Source("", files)], Bytes(), FORM, KEY, 4, writer, lambda more: None)


def test_parts_depend_on_the_corpus_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["x" * 1000] * 1000
    files = source(tmp_path, texts, a_file=600)
    assert [(part.groups.start, part.groups.stop, part.rows) for part in files.parts] == [(0, 10, 600), (0, 7, 400)]
    monkeypatch.setattr(stream, "PART_BYTES", 2000)
    smaller = source(tmp_path / "smaller", texts, a_file=600)
    assert sum(part.rows for part in smaller.parts) == 1000 and len(smaller.parts) > 2
    assert [part.rows for part in smaller.parts] == [part.rows for part in source(tmp_path / "b", texts, 600).parts]


def test_the_size_of_a_batch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH_BYTES", 10_000)
    files = source(tmp_path, [f"{n} " * 1000 for n in range(40)], a_file=40)
    sizes = [batch.column("text").nbytes for part in files.parts for batch in files.read(part)]
    assert len(sizes) > 3 and max(sizes) < 60_000


def test_text_that_becomes_an_end_is_refused_with_its_document(tmp_path: Path) -> None:
    files = source(tmp_path / "store", ["fine", "bad \x07 bad", "fine"])
    with pytest.raises(InputError, match=r"as its end of text \(<end>\), first in document a.jsonl#record=1"):
        written(tmp_path, files)
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
    small = StreamFormat(8, 4, 100, 7, "<end>")
    with pytest.raises(InputError, match="returned id 110 of 100 tokens"):
        encode_part(files, files.parts[0], Bytes(), small)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    texts = [random.Random(n).randbytes(500).hex() for n in range(60)]
    pq.write_table(table("a", texts, 0), tmp_path / "whole", row_group_size=20, compression="zstd")
    whole = (tmp_path / "whole").read_bytes()
    middle = len(whole) // 2
    for number, content in enumerate((b"", whole[:middle], whole[:middle] + bytes(2000) + whole[middle + 2000 :])):
        writer = ArtifactWriter(Store(tmp_path / "s"), f"corpus/{number:016}", "corpus", 1, str(number) * 32, {}, {})
        writer.file("documents/a/00007.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"cannot read .*documents/a/00007.parquet"):
            tokens.run(TokensConfig(vocab_size=300), {"corpus": writer.commit()}, Store(tmp_path / "s"))


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.store import Store
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


@pytest.mark.parametrize(("function", "calls", "kept"), [("write_part", 4, 4), ("write_documents", 1, 6)])
def test_a_killed_run_resumes_after_its_last_part(
    artifact: Artifact,
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
    rewritten: list[str] = []
    real = encode.write_part

    def record(path: Path, *args: object) -> Part:
        rewritten.append(path.name)
        return real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(encode, "write_part", record)
    monkeypatch.setattr(tokenizer, "train", None)  # it is not trained a second time
    resumed = tokens.run(config.model_copy(update={"workers": 2}), {"corpus": corpus}, store)
    assert resumed.digest == artifact.digest
    emitted = [event for event in resumed.events().read()[0] if event["type"] == "parts"][-1]
    assert (emitted["parts"], emitted["found"]) == (6, kept - 1) and len(rewritten) == 6 - (kept - 1)
    assert [name for name in store.list("tokens") if ".part" in name or ".scratch" in name] == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failed_run_keeps_its_parts_and_reports_the_cause(
    documents: Text, config: TokensConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    corpus = write_corpus(tmp_path, documents, {})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "shards/abstracts/00000.arrow")

    monkeypatch.setattr(ShardFiles, "finish", full)
    with pytest.raises(Exception, match=r"No space left.*free some space there and run again: finished work is kept"):
        tokens.run(config.model_copy(update={"workers": workers}), {"corpus": corpus}, Store(tmp_path))
    assert len([*(tmp_path / "tokens").rglob("*.part")]) == 5
    monkeypatch.undo()
    artifact = tokens.run(config, {"corpus": corpus}, Store(tmp_path))
    assert [event["found"] for event in artifact.events().read()[0] if event["type"] == "parts"] == [0, 5]
