"""Fertility of a tokenizer by source: text per token, compared with GPT-2 on text of the same kind.

The usual measures (Rust et al. 2021, arXiv 2012.15613): tokens per word, and bytes and words per token, without EOS. A
word is a run of bytes without ASCII white space, as in `wc -w`, so the measure does not depend on the language; in text
without spaces only bytes per token are meaningful.

GPT-2's figures are in `gpt2_fertility.json`, measured by `python -m benchmarks.gpt2_fertility`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.store import Artifact

SAMPLE_BYTES = 1_000_000
"""Approximate text of a source that is measured: enough for three digits."""

MAX_FILES = 8
"""Maximum files of a source that are read: each costs the reading of a megabyte."""

_BATCH = 64
"""Documents read at once."""

RECORD = "gpt2_fertility.json"

_SPACE = np.zeros(256, dtype=bool)
_SPACE[[9, 10, 11, 12, 13, 32]] = True


@dataclass(frozen=True)
class Fertility:
    """Bytes, words and tokens of the same text."""

    bytes: int
    words: int
    tokens: int

    def __add__(self, other: Fertility) -> Fertility:
        return Fertility(self.bytes + other.bytes, self.words + other.words, self.tokens + other.tokens)

    def ratios(self) -> dict[str, float]:
        """`bytes_per_token`, `words_per_token`, `tokens_per_word`, to four digits; 0 without text."""
        return {
            "bytes_per_token": round(self.bytes / max(self.tokens, 1), 4),
            "words_per_token": round(self.words / max(self.tokens, 1), 4),
            "tokens_per_word": round(self.tokens / max(self.words, 1), 4),
        }


def count_words(texts: pa.Array) -> int:
    """Total words of the texts (string or large_string [n]); a word never continues in the next text."""
    data, offsets = _bytes(texts)
    space = _SPACE[data]
    starts = int(np.count_nonzero(space[:-1] & ~space[1:]))
    # The first byte of a text begins a word too, unless it follows white space and is counted already.
    first = offsets[:-1][offsets[:-1] < offsets[1:]]
    before = np.where(first > 0, space[np.maximum(first - 1, 0)], False)
    return starts + int(np.count_nonzero(~space[first] & ~before))


def measure(corpus: Artifact, source: str, documents: Path, max_bytes: int = SAMPLE_BYTES) -> Fertility:
    """The fertility of a tokenized source, on about `max_bytes` of its text: the same amount from each of its files, or
    from `MAX_FILES` of them.

    Args:
        corpus: the corpus artifact of the source.
        documents: the source's table of documents, in corpus order, with the tokens of each.
    """
    tokens = pa.ipc.open_file(pa.memory_map(str(documents))).read_all().column("length")
    paths = [entry.path for entry in corpus.files(f"documents/{source}/") if entry.path.endswith(".parquet")]
    total, first = Fertility(0, 0, 0), 0
    step = -(-len(paths) // MAX_FILES)
    for place, path in enumerate(paths):
        with corpus.open(path) as stream:
            file = pq.ParquetFile(stream)
            number, left = first, max_bytes / len(paths[::step]) if place % step == 0 else 0
            first += file.metadata.num_rows
            if not left:
                continue
            for batch in file.iter_batches(_BATCH, columns=["text"]):
                texts = batch.column(0)
                found = Fertility(len(_bytes(texts)[0]), count_words(texts), _sum(tokens.slice(number, len(texts))))
                total, number, left = total + found, number + len(texts), left - found.bytes
                if left <= 0:
                    break
    return total


def gpt2_comparison(source: str) -> dict[str, Any]:
    """GPT-2's figures for a source: for that source if it is in the embedded samples, else for `fallback`.

    Returns:
        `gpt2_text` (the text they were measured on), `gpt2_bytes_per_token`, `gpt2_words_per_token`.
    """
    record = gpt2_record()
    texts = record["texts"]
    for text, found in texts.items():
        if source in found["sources"]:
            name, figures = f"{text}/{source}", found["sources"][source]
            break
    else:
        name, figures = record["fallback"], texts[record["fallback"]]["all"]
    return {"gpt2_text": name} | {f"gpt2_{key}": figures[key] for key in ("bytes_per_token", "words_per_token")}


def fertility_rows(tokens: Artifact) -> list[dict[str, Any]]:
    """The sources of a tokens artifact with tokens and fertility, as rows of a table."""
    ratios = ("bytes_per_token", "words_per_token", "tokens_per_word")
    columns = ("source", "documents", "tokens", *ratios, "gpt2_bytes_per_token", "gpt2_words_per_token", "gpt2_text")
    return [{column: line.get(column) for column in columns} for line in tokens.manifest.details["table"]]


@cache
def gpt2_record() -> dict[str, Any]:
    """GPT-2's figures by text and source, and how they were measured."""
    text = (resources.files("stages.tokens") / RECORD).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _sum(numbers: pa.ChunkedArray) -> int:
    return pc.sum(numbers).as_py() or 0


def _bytes(texts: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(uint8 [bytes], offsets [n + 1] into it) of the texts, as views of their buffers."""
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=width)[texts.offset : texts.offset + len(texts) + 1]
    whole = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    return whole[offsets[0] : offsets[-1]], offsets - offsets[0]
