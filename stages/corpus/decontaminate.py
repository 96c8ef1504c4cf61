"""Decontamination: documents that share a run of words with an evaluation question do not stay.

The measure is GPT-3's (Brown et al. 2020, appendix C): 13 words in a row, lower case, without punctuation. A question
of fewer words is looked for as a whole if it has at least eight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifact import InputError
from stages.corpus.config import DecontaminationConfig
from stages.corpus.listing import Listing
from stages.corpus.policy import Removal
from stages.corpus.records import Bad, format_of, read_records
from stages.corpus.words import Hashes, hashes_of, ngram_hashes, word_hashes, words


@dataclass(frozen=True)
class Item:
    """One evaluation question as texts to look for."""

    name: str
    """Set and id, `medqa/17`."""
    texts: tuple[str, ...]
    """Question, options, context."""


def read_items(sets: Mapping[str, Listing]) -> Iterator[Item]:
    """The questions of all sets: JSON Lines with `question`, and optionally `id`, `options`, `context`.

    Raises:
        InputError: a broken line, or one without a question, with file and line.
    """
    for name, listing in sorted(sets.items()):
        for file in listing.files:
            if format_of(file.name) != "jsonl":
                continue
            for record in read_records(listing, file.name, "jsonl"):
                where = f"{listing.path(file.name)}:{record.number}"
                if isinstance(record.value, Bad):
                    raise InputError(f"evaluation set {name}: {where}: {record.value.reason}; mend or remove the line")
                row = record.value
                if not isinstance(row.get("question"), str):
                    raise InputError(
                        f"evaluation set {name}: {where}: no field 'question'; there are: {', '.join(sorted(row))}"
                    )
                texts = [row["question"], *_strings(row.get("options")), *_strings(row.get("context"))]
                yield Item(f"{name}/{row.get('id', record.number)}", tuple(texts))


def _strings(value: Any) -> list[str]:
    """All strings in a value that may be a string, a list or a mapping of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []


class Index:
    """The n-grams of all questions, by length; small enough for every worker's memory (16 bytes an n-gram)."""

    def __init__(self, names: list[str], totals: list[int], tables: dict[int, tuple[Hashes, np.ndarray]]):
        self.names, self.totals, self.tables = names, totals, tables

    @classmethod
    def of(cls, sets: Mapping[str, Listing], config: DecontaminationConfig) -> Index:
        """Builds the index. An n-gram of several questions counts for each of them."""
        names: list[str] = []
        totals: list[int] = []
        collected: dict[int, tuple[list[Hashes], list[int]]] = {}
        for number, item in enumerate(read_items(sets)):
            seen = 0
            for text in item.texts:
                hashes = word_hashes(words(text))
                length = min(len(hashes), config.ngram)
                if length < min(config.minimum_words, config.ngram):
                    continue
                grams = np.unique(ngram_hashes(hashes, length))
                arrays, owners = collected.setdefault(length, ([], []))
                arrays.append(grams)
                owners.extend([number] * len(grams))
                seen += len(grams)
            names.append(item.name)
            totals.append(seen)
        tables = {}
        for length, (arrays, owners) in sorted(collected.items()):
            grams, items = np.concatenate(arrays), np.array(owners, np.int64)
            order = np.lexsort((items, grams))
            tables[length] = (grams[order], items[order])
        return cls(names, totals, tables)

    def save(self, path: Path) -> None:
        """Writes the index for the workers."""
        arrays: dict[str, Any] = {"names": np.array(self.names, np.str_), "totals": np.array(self.totals, np.int64)}
        for length, (grams, items) in self.tables.items():
            arrays[f"grams_{length}"], arrays[f"items_{length}"] = grams, items
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Reads what `save` wrote."""
        with np.load(path) as saved:
            lengths = sorted(int(key.split("_")[1]) for key in saved.files if key.startswith("grams_"))
            tables = {n: (saved[f"grams_{n}"], saved[f"items_{n}"]) for n in lengths}
            return cls(saved["names"].tolist(), saved["totals"].tolist(), tables)

    def removal(self, text: str, config: DecontaminationConfig) -> Removal | None:
        """The question with most n-grams in `text`, if it has enough there."""
        hashes = hashes_of(text)
        hits: dict[int, int] = {}
        for length, (grams, items) in self.tables.items():
            mine = ngram_hashes(hashes, length)
            places = np.searchsorted(grams, mine)
            there = grams[np.minimum(places, len(grams) - 1)] == mine
            for gram in np.unique(mine[there]) if there.any() else ():
                first, last = np.searchsorted(grams, gram, "left"), np.searchsorted(grams, gram, "right")
                for item in items[first:last].tolist():
                    hits[item] = hits.get(item, 0) + 1
        if not hits:
            return None
        best = min(hits, key=lambda item: (-hits[item], self.names[item]))
        if hits[best] < config.minimum_hits:
            return None
        detail = f"{self.names[best]}: {hits[best]} of its {self.totals[best]} n-grams"
        return Removal("contaminated", float(hits[best]), float(config.minimum_hits), detail)
