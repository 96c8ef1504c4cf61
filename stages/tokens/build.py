"""The tokens stage: from a corpus to a tokenizer and token streams."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.store.artifact import ArtifactWriter
from stages.store.errors import ConfigError, InputError
from stages.store.stage import Stage
from stages.tokens.config import TokensConfig
from stages.tokens.encode import Source, cores, encode_sources, write_streams
from stages.tokens.encoder import Encoder, encoder_for
from stages.tokens.existing_tokenizer import load_tokenizer
from stages.tokens.fertility import Fertility, gpt2_comparison, measure
from stages.tokens.kmers import KmerEncoder
from stages.tokens.long_words import MAX_WORD_CHARACTERS, LongWords
from stages.tokens.reader import STREAM
from stages.tokens.stream import (
    DocumentFiles,
    StreamFormat,
    document_files,
    first_texts,
    limit_tokenizer_threads,
    sample_texts,
)
from stages.tokens.table import SCHEMA, SHARDS
from stages.tokens.tokenizer import TextTokenizer, train_once
from stages.tokens.tokenizer_kmers import kmer_tokenizer

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5


def build(config: TokensConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Builds the tokens artifact.

    Args:
        inputs: `corpus`, the corpus artifact; optionally `tokenizer`, the listing of an existing tokenizer's folder.

    Raises:
        InputError: a corpus without documents, a damaged one, or a tokenizer that cannot be used.
        ConfigError: the config sets a tokenizer that was not given as input.
    """
    if config.tokenizer is not None and "tokenizer" not in inputs:
        raise ConfigError(f"tokens: tokenizer {config.tokenizer}: its listing must be passed as input `tokenizer`")
    with limit_tokenizer_threads(config.workers):
        _build(config, inputs, writer)


def _build(config: TokensConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    training, heldout = document_files(inputs["corpus"], "documents"), document_files(inputs["corpus"], "heldout")
    if not any(files.parts for files in training):
        raise InputError(
            f"tokens: corpus {inputs['corpus'].id} has no training documents; its summary says what was removed"
        )
    tokenizer = _tokenizer(config, inputs, training, writer)
    encoder = _encoder(config, tokenizer, first_texts([*training, *heldout]), writer)
    size = tokenizer.vocabulary_size
    form = StreamFormat(config.sequence_length, config.shard_rows, size, tokenizer.eos_id, tokenizer.eos)
    info = {
        "sequence_length": form.sequence_length,
        "vocabulary_size": size,
        "eos_id": form.eos_id,
        "shard_rows": form.shard_rows,
        "dtype": form.dtype.name,
    }
    writer.put(STREAM, json.dumps(info, indent=1).encode() + b"\n")
    sources = _sources(training, "", writer) + _sources(heldout, "heldout/", writer)
    report = _progress(writer, sum(source.files.text_bytes for source in sources))
    workers = config.workers or cores()
    key = hashlib.sha256((json.dumps(info) + tokenizer.text_json).encode()).digest()
    with ThreadPoolExecutor(1) as pool:  # in the background: takes a second for a large vocabulary
        files = pool.submit(_write_tokenizer, tokenizer, config.sequence_length, writer)
        streams = encode_sources(sources, encoder, form, key, workers, writer, report)
        files.result()
    written = [*zip(sources, write_streams(sources, streams, workers, writer), strict=True)]
    done, held = ({s.name: w for s, w in written if s.prefix == prefix} for prefix in ("", "heldout/"))
    for prefix, of_split in (("", done), ("heldout/", held)):
        rows = [row for one in of_split.values() for row in one.shards]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), writer.file(prefix + SHARDS))
    report(0, finished=True)
    fertility = {name: measure(inputs["corpus"], name, writer.file(f"docs/{name}.arrow")) for name in done}
    counts, held_counts = ({name: one.counts for name, one in of_split.items()} for of_split in (done, held))
    _summarize(writer, counts, held_counts, size, fertility)


def _write_tokenizer(tokenizer: TextTokenizer, sequence_length: int, writer: ArtifactWriter) -> None:
    for name, content in tokenizer.files(sequence_length).items():
        writer.put(f"tokenizer/{name}", content)
    np.save(writer.file("token_bytes.npy"), tokenizer.token_bytes())


def _sources(files: list[DocumentFiles], prefix: str, writer: ArtifactWriter) -> list[Source]:
    """The sources with documents; the others are reported as events."""
    for empty in (one for one in files if not one.parts):
        writer.events.emit("empty_source", split=prefix.rstrip("/") or "documents", source=empty.source)
    return [Source(prefix, one) for one in files if one.parts]


def _tokenizer(
    config: TokensConfig, inputs: Mapping[str, Any], sources: list[DocumentFiles], writer: ArtifactWriter
) -> TextTokenizer:
    started = time.monotonic()
    if "tokenizer" in inputs:
        tokenizer = load_tokenizer(inputs["tokenizer"])
    elif config.kmers:
        tokenizer = kmer_tokenizer(config.kmers)
    else:
        path = writer.resume_dir("tokenizer") / "trained.json"
        tokenizer = train_once(path, sample_texts(sources, config.tokenizer_training_bytes), config.vocab_size)
    seconds = round(time.monotonic() - started, 3)
    trained = "tokenizer" not in inputs and config.kmers is None
    writer.events.emit("tokenizer", vocabulary=tokenizer.vocabulary_size, trained=trained, seconds=seconds)
    if trained:
        _report_long_words(tokenizer.long_words, writer)
    return tokenizer


def _report_long_words(long: LongWords, writer: ArtifactWriter) -> None:
    writer.counts |= {"long_words": long.words, "long_word_characters": long.characters}
    if long.words:
        message = (
            f"tokens: {long.words:,} words of more than {MAX_WORD_CHARACTERS} characters, {long.characters:,} in "
            "all, were cut into parts of that length to train the tokenizer; they are encoded whole. If they are not "
            "words of a language (base64, sequences), filter them, or see `tokens.kmers`"
        )
        writer.events.emit("warning", message=message)
        log.warning("%s", message)


def _encoder(config: TokensConfig, tokenizer: TextTokenizer, samples: Iterable[str], writer: ArtifactWriter) -> Encoder:
    """The fastest encoder with the tokenizer's ids: compiled code for k-mers, gigatoken for byte-level BPE."""
    if config.kmers is None:
        return encoder_for(tokenizer, samples, writer.events.emit)
    kmers = KmerEncoder(config.kmers)
    return encoder_for(tokenizer, samples, writer.events.emit, lambda _: kmers)


def _progress(writer: ArtifactWriter, expected: int) -> Callable[..., None]:
    """A function that reports bytes of text done, of about `expected`, at most twice per second."""
    done, last = 0, 0.0

    def report(more: int, *, finished: bool = False) -> None:
        nonlocal done, last
        done += more
        if finished or time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            writer.events.progress(done, done if finished else max(done, expected), "bytes")

    return report


def _summarize(
    writer: ArtifactWriter,
    done: dict[str, dict[str, int]],
    held: dict[str, dict[str, int]],
    vocabulary: int,
    fertility: dict[str, Fertility],
) -> None:
    writer.counts["vocabulary"] = vocabulary
    for prefix, of_split in (("", done), ("heldout_", held)):
        for name in ("documents", "bytes", "tokens", "rows", "shards"):
            writer.counts[prefix + name] = sum(source[name] for source in of_split.values())
        if of_split:
            text = writer.counts[f"{prefix}tokens"] - writer.counts[f"{prefix}documents"]
            writer.metrics[f"{prefix}bytes_per_token"] = writer.counts[f"{prefix}bytes"] / max(text, 1)
    writer.metrics["words_per_token"] = sum(fertility.values(), Fertility(0, 0, 0)).ratios()["words_per_token"]
    table = []
    for source in sorted({*done, *held}):
        line: dict[str, Any] = {"source": source}
        for prefix, of_split in (("", done), ("heldout_", held)):
            line |= {prefix + name: value for name, value in of_split.get(source, dict.fromkeys(_COLUMNS, 0)).items()}
        if source in fertility:
            line |= fertility[source].ratios() | gpt2_comparison(source)
        line["bytes_per_token"] = round(line["bytes"] / max(line["tokens"] - line["documents"], 1), 4)
        writer.counts |= {f"{name}/{source}": line[name] for name in ("documents", "tokens", "rows")}
        table.append(line)
    writer.details["table"] = table


_COLUMNS = ("documents", "bytes", "tokens", "rows", "shards")

tokens: Stage[TokensConfig] = Stage("tokens", 3, build)
"""Input `corpus` (and optionally `tokenizer`); see `build`."""
