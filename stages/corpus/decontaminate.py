"""Decontamination: removes documents that share a run of words with an evaluation question.

The measure is GPT-3's (Brown et al. 2020, appendix C): 13 words in a row, lower case, without punctuation. Many
questions have fewer words. So a question is joined with its gold answer; if they have fewer than 13 words, all
of them must occur in a row. A context, such as an abstract, is searched separately, unless it has fewer than eight
words. Options other than the answer are not searched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import DecontaminationConfig
from stages.corpus.evaluation_items import read_items
from stages.corpus.kernels.matching import find_grams, grams_of
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.policy import Removal
from stages.corpus.reading.listing import Listing
from stages.corpus.texts import Texts
from stages.store import InputError

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_BITS_PER_GRAM = 64


@dataclass(frozen=True)
class Matches:
    """Evaluation items in n documents: `hits[k]` n-grams of item `items[k]` occur in document `rows[k]`."""

    index: Index
    rows: Places
    items: Places
    hits: Places

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Items with an n-gram in any document: bool[items]."""
        seen = np.zeros(len(self.index), np.bool_)
        seen[self.items] = True
        return seen

    def removals(self, config: DecontaminationConfig) -> dict[int, Removal]:
        """By row, removals of documents that contain an item: `minimum_hits` of its n-grams, or all if it has fewer.

        The detail names the item with most n-grams in the document.
        """
        needed = np.minimum(self.index.totals[self.items], config.minimum_hits)
        enough = np.flatnonzero(self.hits >= needed)
        # Sorted within a row by hits, then by item; the first of each row is used.
        order = enough[np.lexsort((self.items[enough], -self.hits[enough], self.rows[enough]))]
        rows, first = np.unique(self.rows[order], return_index=True)
        out: dict[int, Removal] = {}
        for row, k in zip(rows.tolist(), order[first].tolist(), strict=True):
            item, hits = int(self.items[k]), int(self.hits[k])
            detail = f"{self.index.names[item]}: {hits} of its {self.index.totals[item]} n-grams"
            out[row] = Removal("contaminated", float(hits), float(needed[k]), detail)
        return out


class Index:
    """The n-grams of all items; about 40 bytes for each n-gram, in every worker's memory.

    Args:
        names: of the items, `medqa/17`.
        totals: different n-grams of each item, int64[items].
        grams: uint64[k], those of n words sorted in `grams[firsts[n]:firsts[n + 1]]`.
        owners: items, int64; those of n-gram g are `owners[owner_starts[g]:owner_starts[g + 1]]`.
        bits: the filter of `matching.find_grams`.
    """

    def __init__(
        self,
        names: Sequence[str],
        totals: Places,
        grams: Hashes,
        firsts: Places,
        owners: Places,
        owner_starts: Places,
        bits: Hashes,
    ):
        self.names, self.totals = names, totals
        self._grams, self._firsts, self._owners, self._owner_starts = grams, firsts, owners, owner_starts
        self._bits = bits

    def __len__(self) -> int:
        """Items."""
        return len(self.names)

    @classmethod
    def of(cls, sets: Mapping[str, Listing], config: DecontaminationConfig) -> Index:
        """Builds the index of all items of some sets. An n-gram of several items counts for each of them.

        Raises:
            InputError: see `read_items`.
        """
        names: list[str] = []
        texts: list[str] = []
        items: list[int] = []
        is_context: list[bool] = []
        for number, item in enumerate(read_items(sets)):
            names.append(item.name)
            texts += [item.asked, *item.contexts]
            items += [number] * (1 + len(item.contexts))
            is_context += [False] + [True] * len(item.contexts)
        batch = Texts.of(texts)
        hashes, starts = word_hashes(batch.data, batch.offsets)
        counts = np.diff(starts)
        wanted = ~np.array(is_context, bool) | (counts >= min(config.minimum_words, config.ngram_size))
        hashes = hashes[np.repeat(wanted, counts)]
        counts, owners = counts[wanted], np.array(items, np.int64)[wanted]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        bits = np.zeros(1 << max(0, (_BITS_PER_GRAM * len(hashes)).bit_length() - 6), np.uint64)
        grams, gram_starts = grams_of(hashes, starts, config.ngram_size, bits)
        each = np.diff(gram_starts)
        lengths = np.repeat(np.minimum(counts, config.ngram_size), each)
        return cls(names, *_tables(grams, lengths, np.repeat(owners, each), len(names)), bits)

    def save(self, path: Path) -> None:
        """Writes the index for the workers."""
        names = np.frombuffer(json.dumps(list(self.names)).encode(), np.uint8)
        arrays: dict[str, Any] = {
            "names": names,
            "totals": self.totals,
            "grams": self._grams,
            "firsts": self._firsts,
            "owners": self._owners,
            "owner_starts": self._owner_starts,
            "bits": self._bits,
        }
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Index:
        """Reads what `save` wrote."""
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in saved.files}
        return cls(names=json.loads(arrays.pop("names").tobytes()), **arrays)

    def matches(self, hashes: Hashes, starts: Places) -> Matches:
        """Which items have n-grams in which documents, and how many different ones each.

        Args:
            hashes, starts: the words of n documents, see `word_hashes`.
        """
        if not len(self._grams):
            return Matches(self, *(np.empty(0, np.int64) for _ in range(3)))
        size, count = 0, 1024
        while count > size:
            size = count
            texts, found = np.empty(size, np.int64), np.empty(size, np.int64)
            count = find_grams(hashes, starts, self._grams, self._firsts, self._bits, texts, found)
        pairs = np.unique(texts[:count] * len(self._grams) + found[:count])
        rows, grams = np.divmod(pairs, len(self._grams))
        each = self._owner_starts[grams + 1] - self._owner_starts[grams]
        # The owners of each n-gram, concatenated.
        places = np.repeat(self._owner_starts[grams] - np.cumsum(each) + each, each) + np.arange(each.sum())
        pairs, hits = np.unique(np.repeat(rows, each) * len(self) + self._owners[places], return_counts=True)
        rows, items = np.divmod(pairs, len(self))
        return Matches(self, rows, items, hits)


def _tables(grams: Hashes, lengths: Places, items: Places, count: int) -> tuple[Places, Hashes, Places, Places, Places]:
    """totals, grams, firsts, owners, owner_starts of `Index`.

    Args:
        grams, lengths, items: of each n-gram of each text its hash, its words and the item that it belongs to.
        count: items.
    """
    order = np.lexsort((items, grams, lengths))
    grams, lengths, items = grams[order], lengths[order], items[order]
    other = np.ones(len(grams), bool)
    other[1:] = (grams[1:] != grams[:-1]) | (lengths[1:] != lengths[:-1])
    pair = other.copy()
    pair[1:] |= items[1:] != items[:-1]
    owner_starts = np.append(np.flatnonzero(other[pair]), pair.sum()).astype(np.int64)
    longest = int(lengths.max(initial=0))
    firsts = np.searchsorted(lengths[other], np.arange(longest + 2)).astype(np.int64)
    return np.bincount(items[pair], minlength=count).astype(np.int64), grams[other], firsts, items[pair], owner_starts


def clean_subsets(
    sets: Mapping[str, Listing], seen: NDArray[np.bool_], index: Index, put: Callable[[str, bytes], None]
) -> None:
    """Writes the clean items of each set: those that no document of the corpus contained, before any was removed.

    This is GPT-3's clean subset (Brown et al. 2020, appendix C), cautiously: an item is not clean if one document
    shares a run of its words, for whatever reason. Since such documents are removed, no item is in the training data
    word for word; a better score on the whole set than on its clean subset hints at reworded copies.

    `clean/{set}.jsonl` has the rows of the set's clean items, unchanged; a set without any is not written.
    `clean.jsonl` has a line for every item: set, id, clean, ngrams (how many were searched; an item without words has
    none, and is clean).

    Args:
        sets: those that the index was built from.
        seen: union of `Matches.seen` over all documents, bool[items].
        put: writes a file, given its name and content.

    Raises:
        InputError: a set has changed since the index was built.
    """
    kept: dict[str, list[bytes]] = {}
    lines: list[bytes] = []
    number = 0
    for number, item in enumerate(read_items(sets), 1):
        if number > len(index) or index.names[number - 1] != item.name:
            raise InputError(f"evaluation set {item.set} changed during the run, at item {item.id}; run again")
        clean = not seen[number - 1]
        if clean:
            kept.setdefault(item.set, []).append(item.line)
        note = {"set": item.set, "id": item.id, "clean": clean, "ngrams": int(index.totals[number - 1])}
        lines.append(json.dumps(note, ensure_ascii=False).encode())
    if number != len(index):
        raise InputError("the evaluation sets changed during the run; run again")
    for name, rows in kept.items():
        put(f"clean/{name}.jsonl", b"\n".join([*rows, b""]))
    put("clean.jsonl", b"\n".join([*lines, b""]))
