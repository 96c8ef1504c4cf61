"""From a position to its documents and from a document to its positions, against a walk over every token; without a
single shard; and over a billion rows."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.store import Artifact
from stages.tokens.documents_table import DOCUMENTS, DOCUMENTS_PER_BATCH
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.reader import TokenReader
from stages.tokens.table import SCHEMA
from stages.tokens.trace import documents_at, find_documents, samples_of, tables_folder

S, SHARD_ROWS = 64, 32
PHASES = [
    Phase(160, weights={"abstracts": 6, "labels": 1}),
    Phase(40, 2, {"abstracts": 1, "labels": 1}),
    Phase(300, repeat={"tiny": 9}),
    Phase(24, 4, {"abstracts": 3, "labels": 1}),
]


@pytest.fixture(scope="module")
def reader(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> TokenReader:
    """A reader of the artifact's tables in a folder without shards."""
    folder = tmp_path_factory.mktemp("without-shards")
    for path in tables_folder(artifact.store, artifact.folder).rglob("*"):
        if path.is_file() and "shards" not in path.relative_to(artifact.local()).parts:
            target = folder / path.relative_to(artifact.local())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    assert not list(folder.glob("**/shards/**/*.arrow"))
    return TokenReader(folder)


@pytest.fixture(scope="module", params=[1, 4])
def order(request: pytest.FixtureRequest, reader: TokenReader) -> Order:
    # Streams of a source with one row each would be too many: then it is left out.
    streams = request.param
    phases = (
        PHASES if streams == 1 else [Phase(p.samples, p.rows_per_sample, {"abstracts": 3, "labels": 1}) for p in PHASES]
    )
    return Order(reader.shards, "digest", 5, phases, 3, streams)


@pytest.fixture(scope="module")
def owners(reader: TokenReader) -> dict[str, list[tuple[str, int] | None]]:
    """Per source, of every token of its stream: the document's uri and which token of it; None for EOS and filler."""
    found = {}
    for source, name in enumerate(reader.shards.sources):
        stream: list[tuple[str, int] | None] = []
        for number in range(reader.document_count(source)):
            document = reader.document(source, number)
            stream += [(document.uri, token) for token in range(document.length)] + [None]
        rows = int(reader.shards.rows[source].sum())
        found[name] = stream + [None] * (rows * S - len(stream))
    return found


@pytest.fixture(scope="module")
def walked(order: Order, owners: dict[str, list[tuple[str, int] | None]]) -> list[list[tuple[str, str, int, int]]]:
    """Per position its documents: (source, uri, first token, tokens) in order, by a walk over each token."""
    found = []
    for position in range(order.samples):
        source, shard, row, k = order.at([position])
        name = order.shards.sources[int(source[0])]
        first = (int(shard[0]) * SHARD_ROWS + int(row[0])) * S
        here: dict[str, list[int]] = defaultdict(list)
        for owner in owners[name][first : first + k * S]:
            if owner:
                here[owner[0]].append(owner[1])
        found.append([(name, uri, tokens[0], len(tokens)) for uri, tokens in here.items()])
    return found


def test_a_batch_s_documents(order: Order, reader: TokenReader, walked: list[list[tuple[str, str, int, int]]]) -> None:
    seen = 0
    for segment in order.segments:
        first, count = segment.start * order.streams, segment.slots * order.streams
        lines = documents_at(order, reader, np.arange(first, first + count))
        by_position = defaultdict(list)
        for line in lines:
            by_position[line.position].append((line.source, line.uri, line.offset, line.tokens))
            assert line.license == "CC-BY-4.0" and line.offset + line.tokens <= line.of
        assert [by_position[p] for p in range(first, first + count)] == walked[first : first + count]
        seen += len(lines)
    assert seen > order.samples


def test_a_document_s_positions(
    order: Order, reader: TokenReader, walked: list[list[tuple[str, str, int, int]]]
) -> None:
    expected = defaultdict(list)
    for position, here in enumerate(walked):
        for source, uri, offset, tokens in here:
            expected[source, uri].append((position, offset, tokens))
    for source, name in enumerate(reader.shards.sources):
        for number in range(reader.document_count(source)):
            document = reader.document(source, number)
            found = samples_of(order, reader, [document])
            assert [(s.position, s.offset, s.tokens) for s in found] == expected[name, document.uri]
            assert {(s.source, s.doc_id, s.license, s.of) for s in found} <= {
                (name, document.doc_id, document.license, document.length)
            }


def test_documents_are_named_by_id_or_uri(reader: TokenReader) -> None:
    document = reader.document(1, 3)
    assert find_documents(reader, document.doc_id) == find_documents(reader, document.uri) == [document]
    assert find_documents(reader, "nothing") == []


def test_an_empty_document_is_in_no_sample(order: Order, reader: TokenReader) -> None:
    empty = next(d for n in range(reader.document_count(1)) if not (d := reader.document(1, n)).length)
    assert samples_of(order, reader, [empty]) == []


@pytest.fixture(scope="module")
def billion(tmp_path_factory: pytest.TempPathFactory) -> TokenReader:
    """Tables of a stream of a billion rows of 2,048 tokens in 61,036 shards that do not exist: 100,000 documents of 100
    tokens, and then as many large ones as fill the rest."""
    folder = tmp_path_factory.mktemp("billion")
    rows, length = 1_000_000_000, 2048
    info = {"sequence_length": length, "vocabulary_size": 300, "eos_id": 0, "shard_rows": 16_384, "dtype": "uint16"}
    (folder / "stream.json").write_text(json.dumps(info))
    shards = -(-rows // 16_384)
    in_each = np.full(shards, 16_384)
    in_each[-1] = rows - 16_384 * (shards - 1)
    columns = {
        "source": np.full(shards, "web"),
        "number": np.arange(shards, dtype=np.int32),
        "rows": in_each,
        "tokens": in_each * length,
        "bytes": in_each * 0,
        "sha256": np.full(shards, ""),
    }
    pq.write_table(
        pa.table({name: pa.array(values) for name, values in columns.items()}, SCHEMA), folder / "shards.parquet"
    )
    lengths = np.full(200_000, 100)
    lengths[100_000:] = (rows * length - 100_000 * 101) // 100_000 - 1
    starts = np.cumsum(np.concatenate([[0], lengths[:-1] + 1]))
    ids = [f"{n:032x}" for n in range(len(lengths))]
    table = pa.table([ids, ids, ["CC0-1.0"] * len(ids), starts, lengths, lengths], schema=DOCUMENTS)
    (folder / "docs").mkdir()
    with pa.OSFile(str(folder / "docs/web.arrow"), "wb") as sink, pa.ipc.new_file(sink, DOCUMENTS) as writer:
        writer.write_table(table, max_chunksize=DOCUMENTS_PER_BATCH)
    (folder / "index").mkdir()
    for column in ("doc_id", "uri"):
        np.save(folder / f"index/web.{column}.npy", np.arange(len(ids)))
    return TokenReader(folder)


def test_over_a_billion_rows(billion: TokenReader) -> None:
    """Two epochs and some: each document is found at each of its rows once an epoch, and that row has it."""
    order = Order(billion.shards, "digest", 1, [Phase(2_400_000_000), Phase(1_024_000, 4)], 16)
    for number in (7, 199_998):
        (document,) = find_documents(billion, f"{number:032x}")
        found = samples_of(order, billion, [document])
        last = (document.start + document.length - 1) // 2048
        spread = last - document.start // 2048 + 1
        assert spread * 2 <= len([s for s in found if s.position < 2_400_000_000]) <= spread * 3
        for line in found[:: max(1, len(found) // 40)]:
            here = documents_at(order, billion, [line.position])
            assert line in here
            assert sum(each.tokens + 1 for each in here) >= order.rows_per_sample_at(line.position) * 2048 - 2
