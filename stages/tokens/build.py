"""The tokens stage: corpus in, tokenizer and token streams out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifact.artifact import ArtifactWriter
from stages.artifact.errors import ConfigError, InputError
from stages.artifact.stage import Stage
from stages.tokens.config import TokensConfig
from stages.tokens.reader import STREAM
from stages.tokens.shards import DocumentWriter, ShardWriter
from stages.tokens.stream import DocumentFiles, document_files, encode_source, sample_texts, threads
from stages.tokens.table import SCHEMA, SHARDS
from stages.tokens.tokenizer import TextTokenizer, adopt, train
from stages.tokens.tokenizer_kmers import kmer_tokenizer

_TELL_SECONDS = 0.5


def build(config: TokensConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Makes the tokens artifact.

    Args:
        inputs: `corpus`, the corpus artifact; optionally `tokenizer`, the listing of an existing tokenizer's folder.

    Raises:
        InputError: a corpus without documents, a damaged one, or a tokenizer that cannot be used.
        ConfigError: a tokenizer folder in the config that was not given as input.
    """
    if config.tokenizer is not None and "tokenizer" not in inputs:
        raise ConfigError(f"tokens: the folder {config.tokenizer} must be listed and given as input `tokenizer`")
    with threads(config.workers):
        _build(config, inputs, writer)


def _build(config: TokensConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    training, heldout = document_files(inputs["corpus"], "documents"), document_files(inputs["corpus"], "heldout")
    tokenizer = _tokenizer(config, inputs, training, writer)
    size = tokenizer.vocabulary_size
    dtype = np.dtype(np.uint16 if size <= 1 << 16 else np.uint32)
    info = {
        "sequence_length": config.sequence_length,
        "vocabulary_size": size,
        "eos_id": tokenizer.eos_id,
        "shard_rows": config.shard_rows,
        "dtype": dtype.name,
    }
    writer.put(STREAM, json.dumps(info, indent=1).encode() + b"\n")
    for name, content in tokenizer.files(config.sequence_length).items():
        writer.put(f"tokenizer/{name}", content)
    np.save(writer.file("token_bytes.npy"), tokenizer.token_bytes())

    tell = _progress(writer, sum(files.text_bytes() for files in (*training, *heldout)))
    done = _streams(config, training, tokenizer, dtype, writer, "", tell)
    held = _streams(config, heldout, tokenizer, dtype, writer, "heldout/", tell)
    if not done:
        raise InputError(f"tokens: corpus {inputs['corpus'].id} holds no training documents; look at its summary")
    tell(0, finished=True)
    _summarize(writer, done, held, size)


def _tokenizer(
    config: TokensConfig, inputs: Mapping[str, Any], sources: list[DocumentFiles], writer: ArtifactWriter
) -> TextTokenizer:
    began = time.monotonic()
    if "tokenizer" in inputs:
        tokenizer = adopt(inputs["tokenizer"])
    elif config.kmers:
        tokenizer = kmer_tokenizer(config.kmers)
    else:
        tokenizer = train(sample_texts(sources, config.sample_bytes), config.vocabulary)
    seconds = round(time.monotonic() - began, 3)
    trained = "tokenizer" not in inputs and config.kmers is None
    writer.events.emit("tokenizer", vocabulary=tokenizer.vocabulary_size, trained=trained, seconds=seconds)
    return tokenizer


def _streams(
    config: TokensConfig,
    sources: list[DocumentFiles],
    tokenizer: TextTokenizer,
    dtype: np.dtype[Any],
    writer: ArtifactWriter,
    prefix: str,
    tell: Callable[[int], None],
) -> dict[str, dict[str, int]]:
    """Writes the streams of one part; per source with documents: documents, bytes, tokens, rows, shards."""
    lines: list[dict[str, Any]] = []
    found: dict[str, dict[str, int]] = {}
    for files in sources:
        if not _has_documents(files):
            writer.events.emit("empty_source", part=prefix.rstrip("/") or "documents", source=files.source)
            continue

        def new_file(path: str) -> Any:
            return writer.file(prefix + path)

        shards = ShardWriter(new_file, files.source, config.sequence_length, config.shard_rows, dtype, tokenizer.eos_id)
        documents = DocumentWriter(new_file, files.source)
        size = encode_source(files, tokenizer, shards, documents, tell)
        shards.close()
        documents.close()
        lines += shards.lines
        found[files.source] = {
            "documents": documents.count,
            "bytes": size,
            "tokens": shards.tokens,
            "rows": shards.rows,
            "shards": len(shards.lines),
        }
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), writer.file(prefix + SHARDS))
    return found


def _has_documents(files: DocumentFiles) -> bool:
    return any(batch.num_rows for batch in files.batches(("doc_id",)))


def _progress(writer: ArtifactWriter, expected: int) -> Callable[..., None]:
    """Tells bytes of text done, of about so many, at most twice a second."""
    done, last = 0, 0.0

    def tell(more: int, *, finished: bool = False) -> None:
        nonlocal done, last
        done += more
        if finished or time.monotonic() - last > _TELL_SECONDS:
            last = time.monotonic()
            writer.events.progress(done, done if finished else max(done, expected), "bytes")

    return tell


def _summarize(
    writer: ArtifactWriter, done: dict[str, dict[str, int]], held: dict[str, dict[str, int]], vocabulary: int
) -> None:
    writer.counts["vocabulary"] = vocabulary
    for prefix, part in (("", done), ("heldout_", held)):
        for name in ("documents", "bytes", "tokens", "rows", "shards"):
            writer.counts[prefix + name] = sum(source[name] for source in part.values())
        if part:
            text = writer.counts[f"{prefix}tokens"] - writer.counts[f"{prefix}documents"]
            writer.metrics[f"{prefix}bytes_per_token"] = writer.counts[f"{prefix}bytes"] / max(text, 1)
    table = []
    for source in sorted({*done, *held}):
        line: dict[str, Any] = {"source": source}
        for prefix, part in (("", done), ("heldout_", held)):
            line |= {prefix + name: value for name, value in part.get(source, dict.fromkeys(_COLUMNS, 0)).items()}
        line["bytes_per_token"] = round(line["bytes"] / max(line["tokens"] - line["documents"], 1), 4)
        writer.counts |= {f"{name}/{source}": line[name] for name in ("documents", "tokens", "rows")}
        table.append(line)
    writer.details["table"] = table


_COLUMNS = ("documents", "bytes", "tokens", "rows", "shards")

tokens: Stage[TokensConfig] = Stage("tokens", 1, build)
"""Input `corpus` (and optionally `tokenizer`); see `build`."""
