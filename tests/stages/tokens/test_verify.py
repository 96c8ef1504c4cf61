"""Every error in a tokens artifact is reported with file and field, and a correct artifact has no finding."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.store import Artifact, ArtifactWriter, InputError, Store, all_artifacts
from stages.store.hashing import sha256_file
from stages.tokens import TokensConfig
from stages.tokens.verify import Finding, bytes_to_read, verify_tokens

Make = Callable[..., Artifact]
SHARD, DOCS, INDEX = "shards/abstracts/00001.arrow", "docs/abstracts.arrow", "index/abstracts.uri.npy"


def corpus_of(tokens: Artifact) -> Artifact:
    return next(a for a in all_artifacts(tokens.store, "corpus") if a.digest == tokens.manifest.inputs["corpus"])


def findings(tokens: Artifact, corpus: Artifact | None = None) -> list[Finding]:
    return list(verify_tokens(tokens, corpus, lambda size: None))


@pytest.fixture
def copy(artifact: Artifact, tmp_path: Path) -> Callable[..., Artifact]:
    """Copies the artifact, with files changed *before* they are hashed (`rehashed`: then the checksums fit and
    the content alone is wrong) or after the manifest was written (`damaged`)."""

    number = itertools.count()

    def make(
        rehashed: dict[str, Callable[[Path], None]] | None = None,
        damaged: dict[str, Callable[[Path], None]] | None = None,
    ) -> Artifact:
        manifest = artifact.manifest
        writer = ArtifactWriter(
            Store(tmp_path / str(next(number))),
            artifact.folder,
            "tokens",
            1,
            artifact.fingerprint,
            manifest.config,
            manifest.inputs,
        )
        writer.resolved_config = manifest.resolved_config
        for entry in artifact.files():
            writer.put(entry.path, artifact.read(entry.path))
        for name, change in (rehashed or {}).items():
            change(writer.file(name))
        _update_shard_table(writer, rehashed or {})
        tokens = writer.commit()
        for name, change in (damaged or {}).items():
            change(tokens.local(name))
        return tokens

    return make


def _update_shard_table(writer: ArtifactWriter, changed: dict[str, Callable[[Path], None]]) -> None:
    """Gives changed shards their new size and checksum in the table of shards, as a writer with a bug would."""
    path = writer.file("shards.parquet")
    table = pq.read_table(path)
    lines = table.to_pylist()
    for line in lines:
        name = f"shards/{line['source']}/{line['number']:05}.arrow"
        if name in changed:
            shard = writer.file(name)
            line |= {"bytes": shard.stat().st_size, "sha256": sha256_file(shard)}
            pq.write_table(pa.Table.from_pylist(lines, schema=table.schema), path)


def edit_tokens(place: int, value: int) -> Callable[[Path], None]:
    """Sets one token of a shard."""

    def change(path: Path) -> None:
        with pa.OSFile(str(path), "rb") as source:
            batch = pa.ipc.open_file(source).read_all().to_batches()[0]
        column = batch.column(0)
        tokens = column.values.to_numpy(zero_copy_only=False).copy()
        tokens[place] = value
        array = pa.FixedSizeListArray.from_arrays(pa.array(tokens), column.type.list_size)
        _write(path, pa.record_batch([array], names=["tokens"]))

    return change


def edit_documents(column: str, line: int, value: object) -> Callable[[Path], None]:
    """Sets one value of a table of documents."""

    def change(path: Path) -> None:
        with pa.OSFile(str(path), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
        values = table.column(column).to_pylist()
        values[line] = value
        number = table.schema.get_field_index(column)
        _write(path, table.set_column(number, table.schema.field(column), pa.array(values)).to_batches()[0])

    return change


def _write(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def edit_stream(**fields: object) -> Callable[[Path], None]:
    """Written as the stage writes it, so that replacing a digit by a digit keeps the file's size."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=1) + "\n") and None


def flip(offset: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit_index(values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: np.save(path, values(np.load(path)))


def test_a_correct_artifact_has_no_finding(artifact: Artifact) -> None:
    read: list[int] = []
    assert list(verify_tokens(artifact, corpus_of(artifact), read.append)) == []
    assert sum(read) == bytes_to_read(artifact)


def test_wide_tokens_and_several_blocks_have_no_finding(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.tokens.verify.shards._BLOCK", 100)
    monkeypatch.setattr("stages.tokens.verify.documents._BLOCK", 7)
    monkeypatch.setattr("stages.tokens.documents_table.DOCUMENTS_PER_BATCH", 16)
    tokens = make(config=TokensConfig(vocab_size=300, sequence_length=32, shard_rows=8))
    assert findings(tokens, corpus_of(tokens)) == []


@pytest.mark.parametrize(
    ("file", "change", "field", "message"),
    [
        (SHARD, flip(3000), "sha256", "the file has changed"),
        (SHARD, cut, "bytes", "it is truncated"),
        (SHARD, Path.unlink, "bytes", "missing"),
        ("stream.json", edit_stream(eos_id=1), "sha256", "differs from the manifest"),
        ("stream.json", lambda path: path.write_text("{"), "bytes", "the manifest"),
        (DOCS, flip(2000), "sha256", "differs from the manifest"),
        ("tokenizer/tokenizer.json", flip(100), "sha256", "differs from the manifest"),
        ("heldout/shards/abstracts/00000.arrow", flip(900), "sha256", "the file has changed"),
        ("heldout/index/abstracts.doc_id.npy", cut, "bytes", "the manifest"),
        ("token_bytes.npy", Path.unlink, "bytes", "missing"),
    ],
)
def test_a_damaged_file_is_named(copy, file: str, change: Callable[[Path], None], field: str, message: str) -> None:
    found = findings(copy(damaged={file: change}))
    assert [f for f in found if f.file == file and f.field == field and message in f.problem], found


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (edit_stream(sequence_length=32), "sequence_length", "is 32, but 64 in the artifact's config"),
        (edit_stream(shard_rows=64), "shard_rows", "is 64, but 32 in"),
        (edit_stream(vocabulary_size=70_000), "dtype", "uint16; 70000 tokens need uint32"),
        (edit_stream(eos_id=500), "eos_id", "is 500, of 400 tokens"),
        (edit_stream(eos_id=300), "eos_id", "is 300, a token with"),
        (edit_stream(eos_id=True), "eos_id", "is True, which is not an integer"),
        (edit_stream(dtype=16), "dtype", "is 16, which is not a type"),
        (edit_stream(shard_rows=None), "shard_rows", "is None"),
        (lambda path: path.write_text("[]"), "sequence_length", "is None"),
        (lambda path: path.write_text("{"), "content", "is not valid JSON"),
    ],
)
def test_an_edited_stream_is_reported_by_field(copy, change: Callable[[Path], None], field: str, message: str) -> None:
    """With or without the manifest's checksum."""
    for kind in ("rehashed", "damaged"):
        found = findings(copy(**{kind: {"stream.json": change}}))
        assert [f for f in found if f.file == "stream.json" and f.field == field and message in f.problem], found


@pytest.mark.parametrize(
    ("file", "change", "field", "message"),
    [
        (SHARD, edit_tokens(70, 60_000), "tokens", "token 2,118 of the stream is 60000, but the vocabulary has 400"),
        (SHARD, edit_tokens(3, 0), "tokens", "is an EOS inside document"),
        ("token_bytes.npy", edit_index(lambda table: table[:-1]), "shape", "int32 [400]"),
        (DOCS, edit_documents("length", 5, 1), "start", "document 6 begins at token"),
        (DOCS, edit_documents("start", 0, 1), "start", "document 0 begins at token 1"),
        (DOCS, edit_documents("length", 7, -2), "length", "is negative in document 7"),
        (DOCS, edit_documents("bytes", 8, -2), "bytes", "is negative in document 8"),
        (DOCS, edit_documents("uri", 9, None), "uri", "has nulls"),
        (DOCS, edit_documents("length", 399, 2), "length", "but the shards have"),
        (INDEX, edit_index(lambda index: index[::-1].copy()), "uri", "is not sorted: rows 0 and 1"),
        (INDEX, edit_index(lambda index: index * 0), "uri", "lacks document 1, and has another one twice"),
        (INDEX, edit_index(lambda index: index + 1), "uri", "refers to document 400, but the table has 400"),
        (INDEX, edit_index(lambda index: index[1:]), "shape", "is int64 [399], but the table has 400 documents"),
    ],
)
def test_wrong_content_with_right_checksums_is_reported(
    copy, file: str, change: Callable[[Path], None], field: str, message: str
) -> None:
    found = findings(copy(rehashed={file: change}))
    assert [f for f in found if f.file == file and f.field == field and message in f.problem], found


def test_a_missing_end_of_a_document(copy, artifact: Artifact) -> None:
    """The EOS of some document in the second shard, and one of the filler behind the last document."""
    with pa.memory_map(str(artifact.local(DOCS))) as source:
        table = pa.ipc.open_file(source).read_all()
    ends = (table.column("start").to_numpy() + table.column("length").to_numpy()).tolist()
    number = next(n for n, end in enumerate(ends) if end >= 32 * 64)
    found = findings(copy(rehashed={SHARD: edit_tokens(ends[number] - 32 * 64, 5)}))
    assert f"token {ends[number]:,} of the stream should be the EOS of document {number} (" in found[0].problem

    tiny = "shards/tiny/00000.arrow"
    found = findings(copy(rehashed={tiny: edit_tokens(63, 5)}))
    assert (found[0].file, found[0].problem) == (
        tiny,
        "token 63 of the stream is after the last document and is not EOS",
    )


def test_a_table_of_shards_that_does_not_add_up(copy) -> None:
    def edit(column: str, line: int, value: int) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            table = pq.read_table(path)
            lines = table.to_pylist()
            lines[line][column] = value
            pq.write_table(pa.Table.from_pylist(lines, schema=table.schema), path)

        return change

    for column, value, message in (
        ("rows", 31, f"{SHARD} has 31; shard_rows is 32"),
        ("tokens", 2000, f"{SHARD} has 2,000 in 32 rows"),
        ("number", 7, "shard 1 of source 'abstracts' is missing"),
        ("bytes", 5, f"{SHARD} has"),
        ("sha256", "0" * 64, f"{SHARD} has another one in the manifest"),
    ):
        found = findings(copy(rehashed={"shards.parquet": edit(column, 1, value)}))
        assert [f for f in found if f.file == "shards.parquet" and f.field == column and message in f.problem], found


def test_documents_of_another_corpus(copy, artifact: Artifact, tmp_path: Path) -> None:
    """Another order, one document less, another document, a source less, one more, and another artifact's table."""
    corpus = corpus_of(artifact)

    def other(change: Callable[[pa.Table], pa.Table], more: str = "") -> Artifact:
        """The corpus with all documents of one source in one file, changed, and a copy of that under another name."""
        files = [entry.path for entry in corpus.files("documents/abstracts/")]
        table = change(pa.concat_tables(pq.read_table(corpus.local(path)) for path in files))
        store = Store(tmp_path / f"corpus{table.num_rows}{more}")
        writer = ArtifactWriter(store, corpus.folder, "corpus", 1, corpus.fingerprint, {}, {})
        for entry in corpus.files():
            if entry.path not in files:
                writer.put(entry.path, corpus.read(entry.path))
        pq.write_table(table, writer.file("documents/abstracts/00000.parquet"))
        if more:
            pq.write_table(table, writer.file(f"documents/{more}/00000.parquet"))
        return writer.commit()

    whole = other(lambda table: table)
    assert findings(artifact, whole) == []
    for change, field, message in (
        (lambda table: pa.concat_tables([table[1:2], table[:1], table[2:], table[:1]]), "doc_id", "document 0 is"),
        (lambda table: table[:-1], "doc_id", f"400 documents; {whole.id.split('/')[0]}/"),
        (lambda table: pa.concat_tables([table[:200], table[:1], table[201:], table[:2]]), "doc_id", "document 200 is"),
        (lambda table: table[:0], "doc_id", "has 0 of abstracts"),
        (lambda table: table.set_column(4, "license", pa.array(["MIT"] * 400))[:399], "license", "it is 'MIT'"),
    ):
        found = findings(artifact, other(change, more="copy" if field == "license" else ""))
        assert [f for f in found if f.file == DOCS and f.field == field and message in f.problem], found
    added = other(lambda table: table, more="more")
    assert findings(artifact, added) == [
        Finding("shards.parquet", "source", f"no shard of 'more', which has 400 documents in {added.id}")
    ]
    theirs = edit_documents("doc_id", 3, "0" * 32)
    found = findings(copy(rehashed={DOCS: theirs}), corpus)
    assert [f for f in found if f.file == DOCS and "document 3 is '00000000" in f.problem], found


def test_a_damaged_corpus_is_reported_as_such(make: Make) -> None:
    tokens = make({"a": ["one", "two"]}, {})
    corpus = corpus_of(tokens)
    corpus.local("documents/a/00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"cannot read .*documents/a/00000\.parquet"):
        findings(tokens, corpus)
