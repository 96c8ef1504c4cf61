"""Fertility: how much text a token holds, by source, beside GPT-2's on text of the same kind.

Measured as tokenizers are compared elsewhere (Rust et al. 2021, arXiv 2012.15613): tokens a word, and bytes and words a
token, EOS not counted. A word is a run of bytes without ASCII white space, as `wc -w` counts them, so the measure needs
no language; in text without spaces only bytes a token say something.

GPT-2's figures stand in `gpt2_fertility.json`, measured by `python -m benchmarks.gpt2_fertility`.
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
"""About how much text of a source is measured: enough for three digits."""

MOST_FILES = 8
"""Files of a source that are looked into: each costs the reading of a megabyte."""

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
        """`bytes_per_token`, `words_per_token`, `tokens_per_word`, to four digits; 0 where there is no text."""
        return {
            "bytes_per_token": round(self.bytes / max(self.tokens, 1), 4),
            "words_per_token": round(self.words / max(self.tokens, 1), 4),
            "tokens_per_word": round(self.tokens / max(self.words, 1), 4),
        }


def count_words(texts: pa.Array) -> int:
    """Words of all texts (string or large_string [n]) together; none reaches from one text into the next."""
    data, offsets = _bytes(texts)
    space = _SPACE[data]
    starts = int(np.count_nonzero(space[:-1] & ~space[1:]))
    # The first byte of a text begins a word too, unless the byte before it was counted as the word's end.
    first = offsets[:-1][offsets[:-1] < offsets[1:]]
    before = np.where(first > 0, space[np.maximum(first - 1, 0)], False)
    return starts + int(np.count_nonzero(~space[first] & ~before))


def measure(corpus: Artifact, source: str, documents: Path, most_bytes: int = SAMPLE_BYTES) -> Fertility:
    """The fertility of a source that was tokenized, on about `most_bytes` of its text: as much from each of its files,
    or of `MOST_FILES` of them.

    Args:
        corpus: the corpus artifact that holds the source.
        documents: the source's table of documents, in corpus order, which says how many tokens each one became.
    """
    tokens = pa.ipc.open_file(pa.memory_map(str(documents))).read_all().column("length")
    paths = [entry.path for entry in corpus.files(f"documents/{source}/") if entry.path.endswith(".parquet")]
    total, first = Fertility(0, 0, 0), 0
    step = -(-len(paths) // MOST_FILES)
    for place, path in enumerate(paths):
        with corpus.open(path) as stream:
            file = pq.ParquetFile(stream)
            number, left = first, most_bytes / len(paths[::step]) if place % step == 0 else 0
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


def beside_gpt2(source: str) -> dict[str, Any]:
    """GPT-2's figures for the source: its own where it is one of a sample's, else those of `fallback`.

    Returns:
        `gpt2_text` (whose figures they are), `gpt2_bytes_per_token`, `gpt2_words_per_token`.
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
    """A tokens artifact's sources, their tokens and fertility, as lines of a table."""
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
