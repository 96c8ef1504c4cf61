"""The artifact: streams are the documents' encodings, every token leads to its document, builds are reproducible."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from stages.store import Artifact, ArtifactWriter, InputError, Store, StoreError, all_artifacts
from stages.store.artifact import sha256_file
from stages.tokens import TokensConfig, tokens
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.reader import TokenReader
from stages.tokens.stream import document_files, sample_texts
from stages.tokens.tokenizer import EOS, EOS_ID, TextTokenizer
from tests.stages.tokens.conftest import rebuild

S = 64
Documents = dict[str, list[str]]


@pytest.fixture(scope="module")
def reader(artifact: Artifact) -> TokenReader:
    return TokenReader(artifact.local())


@pytest.fixture(scope="module")
def encode(artifact: Artifact) -> Callable[[list[str]], list[list[int]]]:
    return TextTokenizer(Tokenizer.from_file(str(artifact.local("tokenizer/tokenizer.json"))), EOS, EOS, {}).encode


def stream(reader: TokenReader, source: int) -> list[int]:
    shards = [reader.shard(source, shard).ravel() for shard in range(len(reader.shards.rows[source]))]
    return np.concatenate(shards).tolist()


@pytest.mark.parametrize("part", ["", "heldout"])
def test_streams_are_the_encoded_documents(
    artifact: Artifact,
    documents: Documents,
    heldout: Documents,
    encode: Callable[[list[str]], list[list[int]]],
    part: str,
) -> None:
    reader = TokenReader(artifact.local(), part)
    texts = heldout if part else documents
    assert reader.shards.sources == tuple(name for name in sorted(texts) if texts[name])
    for number, source in enumerate(reader.shards.sources):
        expected = [token for ids in encode(texts[source]) for token in [*ids, EOS_ID]]
        found = stream(reader, number)
        assert found[: len(expected)] == expected
        assert set(found[len(expected) :]) <= {EOS_ID} and len(found) - len(expected) < S
        rows = reader.shards.rows[number]
        assert (rows[:-1] == 32).all() and rows.sum() == len(found) // S


def test_shards_open_with_plain_pyarrow(artifact: Artifact) -> None:
    shards = pq.read_table(artifact.local("shards.parquet")).to_pylist()
    assert len(shards) > 5
    total = 0
    for line in shards:
        path = artifact.local(f"shards/{line['source']}/{line['number']:05}.arrow")
        assert (path.stat().st_size, sha256_file(path)) == (line["bytes"], line["sha256"])
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            assert file.schema == pa.schema([pa.field("tokens", pa.list_(pa.uint16(), S))])
            assert file.num_record_batches == 1
            assert file.read_all().num_rows == line["rows"]
        total += line["tokens"]
    assert total == artifact.manifest.counts["tokens"]


def test_rows_are_views_of_the_file(reader: TokenReader) -> None:
    rows = reader.rows(0, 1, 3, 2)
    assert rows.shape == (2 * S,) and not rows.flags.owndata and not rows.flags.writeable
    assert np.shares_memory(rows, reader.shard(0, 1))
    batch = reader.batch([(0, 1, 3), (1, 0, 0)], 2)
    assert batch.dtype == np.int64 and (batch[0] == rows).all() and (batch[1] == reader.rows(1, 0, 0, 2)).all()
    assert reader.batch(np.zeros((0, 3), np.int64)).shape == (0, S)
    for first in (-1, 31, 32):
        with pytest.raises(IndexError):
            reader.rows(0, 1, first, 2)


def rows_of(reader: TokenReader, doc_id: str) -> list[tuple[int, int, int]]:
    """The (source, shard, row) of every row with a token of the documents with this id."""
    found = []
    for entry in reader.find(doc_id=doc_id):
        first, last = (at // reader.sequence_length for at in (entry.start, entry.start + entry.length - 1))
        found += [(entry.source, *divmod(number, reader.shard_rows)) for number in range(first, last + 1)]
    return found


@pytest.mark.parametrize("k", [1, 2])
def test_every_token_leads_to_its_document(
    reader: TokenReader, documents: Documents, encode: Callable[[list[str]], list[list[int]]], k: int
) -> None:
    for source, name in enumerate(reader.shards.sources):
        encoded = encode(documents[name])
        seen = [0] * len(encoded)
        for shard, rows in enumerate(reader.shards.rows[source].tolist()):
            for row in range(0, rows // k * k, k):
                tokens_here = reader.rows(source, shard, row, k)
                rest = tokens_here.copy()
                for span in reader.documents(source, shard, row, k):
                    part = encoded[span.document][span.offset : span.offset + span.length]
                    assert len(part) == span.length > 0
                    assert tokens_here[span.place : span.place + span.length].tolist() == part
                    assert (span.uri, span.license) == (f"{name}.jsonl#record={span.document}", "CC-BY-4.0")
                    assert {(source, shard, row + i) for i in range(k)} & set(rows_of(reader, span.doc_id))
                    rest[span.place : span.place + span.length] = EOS_ID
                    seen[span.document] += span.length
                assert (rest == EOS_ID).all()  # only EOS and filler remain
        if k == 1:
            assert seen == [len(ids) for ids in encoded]


def test_documents_are_found_by_id_and_by_uri(reader: TokenReader, documents: Documents) -> None:
    for source, name in enumerate(reader.shards.sources):
        assert reader.document_count(source) == len(documents[name])
        for number, text in enumerate(documents[name]):
            entry = reader.document(source, number)
            assert entry in reader.find(doc_id=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
            assert reader.find(uri=f"{name}.jsonl#record={number}") == [entry]
            assert entry.bytes == len(text.encode())
    assert reader.find(doc_id="0" * 32) == [] and reader.find(uri="zzz") == []


def test_from_a_document_to_positions_and_back(reader: TokenReader) -> None:
    order = Order(reader.shards, "d", 1, [Phase(1200)], shuffle_window_shards=2, streams=1)
    for number in (0, 57, 399):
        entry = reader.document(0, number)
        rows = np.array([row for row in rows_of(reader, entry.doc_id) if row[0] == 0])
        which, positions = order.occurrences(0, rows[:, 1], rows[:, 2])
        assert {*which.tolist()} == {*range(len(rows))}
        for source, shard, row in order.at(positions).triples.tolist():
            assert entry.doc_id in {span.doc_id for span in reader.documents(source, shard, row)}


def test_large_tables_of_documents_have_several_batches(make: Callable[..., Artifact]) -> None:
    texts = [str(n) for n in range(70_000)]
    config = TokensConfig(vocab_size=257, sequence_length=512)
    reader = TokenReader(make({"numbers": texts}, {}, config).local())
    for number in (0, 65_535, 65_536, 69_999):
        (entry,) = reader.find(uri=f"numbers.jsonl#record={number}")
        assert entry.document == number and entry.length == len(texts[number])
        source, shard, row = rows_of(reader, entry.doc_id)[0]
        assert number in {span.document for span in reader.documents(source, shard, row)}


def test_counts_metrics_and_events(artifact: Artifact, documents: Documents, heldout: Documents) -> None:
    counts, table = artifact.manifest.counts, {line["source"]: line for line in artifact.manifest.details["table"]}
    assert counts["documents"] == sum(len(texts) for texts in documents.values())
    assert counts["bytes"] == sum(len(text.encode()) for texts in documents.values() for text in texts)
    assert counts["heldout_documents"] == len(heldout["abstracts"]) == table["abstracts"]["heldout_documents"]
    assert counts["rows/labels"] == table["labels"]["rows"] and "nothing" not in table
    assert sum(line["tokens"] for line in table.values()) == counts["tokens"]
    text_tokens = counts["tokens"] - counts["documents"]
    assert artifact.manifest.metrics["bytes_per_token"] == pytest.approx(counts["bytes"] / text_tokens)
    events, _ = artifact.events().read()
    last = [event for event in events if event["type"] == "progress"][-1]
    assert last["done"] == last["total"] == counts["bytes"] + counts["heldout_bytes"] and last["unit"] == "bytes"
    assert [event["source"] for event in events if event["type"] == "empty_source"] == ["nothing"]


def test_another_process_other_workers_and_other_files_build_the_same(artifact: Artifact, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("conftest.py")), str(tmp_path / "process"), "2", "33"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == artifact.digest
    assert rebuild(tmp_path / "here", workers=1, a_file=150) == artifact.digest


def test_tokens_are_the_same_forever(artifact: Artifact, reader: TokenReader) -> None:
    # over tokens, not files: other releases of pyarrow may write other headers
    total = hashlib.sha256(artifact.read("tokenizer/tokenizer.json"))
    for source in range(len(reader.shards.sources)):
        total.update(np.array(stream(reader, source), dtype="<u4").tobytes())
    assert total.hexdigest() == GOLDEN, "ids changed: raise the stage's version if that is meant"


def test_the_sample_for_the_tokenizer_is_about_as_large_as_configured(make: Callable[..., Artifact]) -> None:
    texts = [f"document {n} " * 20 for n in range(2000)]
    artifact = make({"a": texts}, {}, TokensConfig(vocab_size=300, tokenizer_training_bytes=100_000))
    (corpus,) = all_artifacts(artifact.store, "corpus")
    sources = document_files(corpus, "documents")
    chosen = [text for batch in sample_texts(sources, 100_000) for text in batch]
    assert 60_000 < sum(len(text) for text in chosen) < 110_000
    assert len(set(chosen)) == len(chosen) < len(texts)
    assert sum(len(batch) for batch in sample_texts(sources, 10**9)) == 2000


def test_a_corpus_without_documents_is_refused(make: Callable[..., Artifact]) -> None:
    for documents in ({}, {"a": []}):
        with pytest.raises(InputError, match="no training documents"):
            make(documents, {})


def test_damaged_documents_are_refused(tmp_path: Path, config: TokensConfig) -> None:
    for number, (content, message) in enumerate(
        [
            (pa.table({"doc_id": ["0" * 32], "text": ["a"]}), "has no column 'uri'"),
            (b"PAR1 not parquet", "cannot read"),
            (
                pa.table({"doc_id": ["0" * 32], "text": pa.array([None], pa.string()), "uri": ["u"], "license": ["l"]}),
                "a document without",
            ),
        ]
    ):
        writer = ArtifactWriter(Store(tmp_path), f"corpus/{number:016}", "corpus", 1, str(number) * 32, {}, {})
        path = writer.file("documents/a/00000.parquet")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        with pytest.raises(InputError, match=message) as error:
            tokens.run(config, {"corpus": writer.commit()}, Store(tmp_path))
        assert "documents/a/00000.parquet" in str(error.value)


def test_no_heldout_documents_is_an_empty_part(make: Callable[..., Artifact]) -> None:
    artifact = make({"a": ["some text", "more text"]}, {})
    assert TokenReader(artifact.local(), "heldout").shards.sources == ()
    assert artifact.manifest.counts["heldout_tokens"] == 0


def test_a_folder_that_is_no_tokens_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="stream"):
        TokenReader(tmp_path)


GOLDEN = "76289099e7e53d67e03dcdef58a84b9e5af70f975956d7eb7e2f5d0e5431659a"
