"""The corpus that `benchmarks/corpus.py` measures on: a base text (`base_text.py`) with planted copies, of any size.

Of the documents 20 % are exact copies of an earlier one and 20 % are near copies (3 % of an earlier one's words
replaced). The others are unique: first the base text's own documents, then, pass by pass, the same ones with 30 % of
their words replaced, after which about a tenth of their 5-grams remain. A smaller corpus is a prefix of a larger one;
equal seeds give equal corpora.
"""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

UNIQUE, EXACT, NEAR = 0, 1, 2
EXACT_SHARE, NEAR_SHARE = 0.2, 0.2
NEAR_REPLACED, PASS_REPLACED = 0.03, 0.3
"""Fractions of words that are replaced in near copies, and in later passes over the base text."""
MEGABYTE = 10**6


@dataclass(frozen=True)
class Planted:
    """What was planted: document i is of `kinds[i]` copied from document `origins[i]` (-1: from the base text)."""

    kinds: NDArray[np.int8]
    origins: NDArray[np.int64]

    def pairs(self, kind: int, documents: int) -> list[tuple[int, int]]:
        """(copy, origin) of the planted copies of a kind among the first `documents`."""
        return [(int(i), int(self.origins[i])) for i in np.flatnonzero(self.kinds[:documents] == kind)]


@dataclass(frozen=True)
class Corpus:
    """JSON Lines with `id` (d0, d1, ...), `text`, `focus`, `url`, `license`."""

    path: Path
    documents: int
    bytes: int
    """Bytes of text, UTF-8."""

    @property
    def megabytes(self) -> float:
        """Megabytes of text."""
        return self.bytes / MEGABYTE


def make_corpus(base: Path, path: Path, megabytes: float, seed: int = 1) -> tuple[Corpus, Planted]:
    """Writes a corpus of at least so many megabytes of text, from a folder of `BaseText.documents`."""
    kinds, origins, size = [], [], 0
    with path.open("wb") as out:
        for number, (record, text, kind, origin) in enumerate(_documents(_read(base), seed)):
            kinds.append(kind)
            origins.append(origin)
            size += len(text.encode())
            out.write(orjson.dumps({"id": f"d{number}", "text": text, **record}) + b"\n")
            if size >= megabytes * MEGABYTE:
                break
    planted = Planted(np.array(kinds, np.int8), np.array(origins, np.int64))
    return Corpus(path, len(kinds), size), planted


def prefix_of(corpus: Corpus, path: Path, megabytes: float) -> Corpus:
    """Copies the first so many megabytes of text of a corpus to another file."""
    documents = size = 0
    with corpus.path.open("rb") as lines, path.open("wb") as out:
        for line in lines:
            out.write(line)
            documents += 1
            size += len(orjson.loads(line)["text"].encode())
            if size >= megabytes * MEGABYTE:
                break
    return Corpus(path, documents, size)


def read_records(path: Path) -> list[dict[str, Any]]:
    """All records of a corpus."""
    with path.open("rb") as lines:
        return [orjson.loads(line) for line in lines]


def read_texts(path: Path) -> list[str]:
    """All texts of a corpus."""
    return [record["text"] for record in read_records(path)]


def _read(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("*.jsonl.gz"))
    records = [orjson.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    return [
        {"text": record["text"].strip()} | {key: record[key] for key in ("focus", "url", "license")}
        for record in records
        if record["text"].strip()
    ]


class _Passes:
    """Unique documents: document i of pass p, regenerated whenever a copy of it is requested."""

    def __init__(self, texts: list[str], seed: int):
        pieces = [re.findall(r"\S+\s*", text) for text in texts]
        self.starts = np.concatenate([[0], np.cumsum([len(words) for words in pieces])])
        self.pieces = [piece for words in pieces for piece in words]
        self.words = [piece.rstrip() for piece in self.pieces]
        self.gaps = [piece[len(word) :] for piece, word in zip(self.pieces, self.words, strict=True)]
        self.seed = seed
        self._replaced: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []

    def document(self, number: int, i: int) -> list[str]:
        """The words of a document, each with the white space behind it."""
        start, end = int(self.starts[i]), int(self.starts[i + 1])
        pieces = self.pieces[start:end]
        if number:
            places, words, bounds = self._pass(number)
            for k in range(bounds[i], bounds[i + 1]):
                place = int(places[k])
                pieces[place - start] = self.words[words[k]] + self.gaps[place]
        return pieces

    def _pass(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        while len(self._replaced) < number:
            draw = np.random.default_rng([self.seed, len(self._replaced) + 1])
            chosen = draw.random(len(self.pieces)) < PASS_REPLACED
            chosen[self.starts[:-1]] = True  # So that every document changes, however short.
            places = np.flatnonzero(chosen)
            words = draw.integers(0, len(self.pieces), len(places))
            self._replaced.append((places, words, np.searchsorted(places, self.starts)))
        return self._replaced[number - 1]


def _documents(base: list[dict[str, str]], seed: int) -> Iterator[tuple[dict[str, str], str, int, int]]:
    """Endless: (fields besides the text, text, kind, origin)."""
    draw = random.Random(seed)
    fields = [{key: value for key, value in record.items() if key != "text"} for record in base]
    passes = _Passes([record["text"] for record in base], seed)
    uniques: list[tuple[int, int, int]] = []  # (position in the corpus, pass, document of the pass)
    position = number = 0
    while True:
        order = list(range(len(base)))
        draw.shuffle(order)
        while order:
            chance = draw.random()
            if chance < EXACT_SHARE + NEAR_SHARE and uniques:
                origin, origin_pass, i = uniques[draw.randrange(len(uniques))]
                pieces = passes.document(origin_pass, i)
                if chance < EXACT_SHARE:
                    kind = EXACT
                else:
                    kind = NEAR
                    for place in draw.sample(range(len(pieces)), max(1, round(NEAR_REPLACED * len(pieces)))):
                        word = passes.words[draw.randrange(len(passes.words))]
                        pieces[place] = word + pieces[place][len(pieces[place].rstrip()) :]
            else:
                i, kind, origin = order.pop(), UNIQUE, -1
                pieces = passes.document(number, i)
                uniques.append((position, number, i))
            yield fields[i], "".join(pieces), kind, origin
            position += 1
        number += 1
