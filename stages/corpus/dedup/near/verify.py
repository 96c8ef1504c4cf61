"""Selects the near copies among candidates by exact similarity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import DedupConfig
from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.jaccard import (
    count_shared,
    insert_ngrams,
    least_difference,
    sizes_and_sketches,
    slots_for,
    table_slots,
)
from stages.corpus.kernels.minhash import NO_KEY
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.texts import Texts

MOST_COMPARED = 500
"""A document is compared with at most so many kept documents, those that share its rarest keys first. Only very many
pages of one template reach this; their common keys would make the comparison quadratic. The limit can miss a removal,
never cause a wrong one."""


@dataclass(frozen=True)
class WordLists:
    """Hashes of the words of n texts, in any order: those of text i are `words[begins[i]:ends[i]]`."""

    words: Hashes
    begins: Starts
    ends: Starts

    @classmethod
    def of(cls, texts: Texts) -> WordLists:
        """The words of texts."""
        words, starts = word_hashes(texts.data, texts.offsets)
        return cls(words, starts[:-1], starts[1:])

    @classmethod
    def empty(cls, count: int) -> WordLists:
        """Texts without words."""
        nowhere = np.zeros(count, np.int64)
        return cls(np.empty(0, np.uint64), nowhere, nowhere)


@dataclass(frozen=True)
class NearCopy:
    """A document to remove, the kept one, and their measured similarity."""

    document: int
    survivor: int
    similarity: float


def near_copies(
    documents: WordLists, subjects: WordLists, keys: NDArray[np.uint64], config: DedupConfig
) -> list[NearCopy]:
    """Which documents to remove.

    A document is removed if it shares a key with a kept one, their similarity is at least the threshold, and the kept
    one names its subject too (`protect_subjects`). Its survivor is the most similar one, of equals the most preferred.
    So a chain of small differences removes nothing. Holds about 600 bytes for each document (at 25 bands).

    Args:
        documents: the most preferred first (of those that are connected by keys).
        subjects: subject of each, without words where it is unknown.
        keys: MinHash keys, uint64[bands, n].

    Returns:
        By position, in order of the documents.
    """
    if not config.protect_subjects:
        subjects = WordLists.empty(len(documents.begins))
    groups, count = key_groups(np.ascontiguousarray(keys))
    sizes, sketches = sizes_and_sketches(documents.words, documents.begins, documents.ends, config.ngram_size)
    survivor, similarity = _copies(
        documents.words,
        documents.begins,
        documents.ends,
        sizes,
        sketches,
        subjects.words,
        subjects.begins,
        subjects.ends,
        groups,
        count,
        config.similarity_threshold,
        config.ngram_size,
        MOST_COMPARED,
    )
    gone = np.flatnonzero(survivor >= 0)
    found = zip(gone.tolist(), survivor[gone].tolist(), similarity[gone].tolist(), strict=True)
    return [NearCopy(*one) for one in found]


@kernel
def key_groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], int]:
    """Keys as small numbers, int32[n, bands]: equal keys of a band have equal numbers, -1 is a key of one document.

    Returns:
        The numbers, and how many different ones there are.
    """
    bands, n = keys.shape
    groups = np.full((n, bands), -1, np.int32)
    slots = slots_for(n)
    mask = np.uint64(slots - 1)
    table, holder = np.empty(slots, np.uint64), np.empty(slots, np.int64)
    count = 0
    for band in range(bands):
        holder[:] = -1
        for i in range(n):
            key = keys[band, i]
            if key == np.uint64(NO_KEY):
                continue
            slot = key & mask
            while holder[slot] >= 0 and table[slot] != key:
                slot = (slot + np.uint64(1)) & mask
            first = holder[slot]
            if first < 0:
                table[slot], holder[slot] = key, i
                continue
            if groups[first, band] < 0:
                groups[first, band] = count
                count += 1
            groups[i, band] = groups[first, band]
    return groups, count


@kernel
def _names_it(words: Hashes, first: int, last: int, names: Hashes, begin: int, end: int) -> bool:
    """Whether the words from `first` to `last` contain the words of a name in a row."""
    length = end - begin
    for i in range(first, last - length + 1):
        j = 0
        while j < length and words[i + j] == names[begin + j]:
            j += 1
        if j == length:
            return True
    return False


@kernel
def _may_replace(
    document: int,
    survivor: int,
    words: Hashes,
    begins: Starts,
    ends: Starts,
    names: Hashes,
    name_begins: Starts,
    name_ends: Starts,
) -> bool:
    """Whether the survivor may replace the document: not if only the document names its own subject."""
    begin, end = name_begins[document], name_ends[document]
    if begin == end:
        return True
    first, last = name_begins[survivor], name_ends[survivor]
    if last - first == end - begin and _names_it(names, first, last, names, begin, end):
        return True
    if _names_it(words, begins[survivor], ends[survivor], names, begin, end):
        return True
    return not _names_it(words, begins[document], ends[document], names, begin, end)


@kernel
def _rarest_first(groups: NDArray[np.int32], members: NDArray[np.int32], order: NDArray[np.int64]) -> int:
    """Fills `order` with the bands in which kept documents share a document's key, fewest first; returns how many."""
    count = 0
    for band in range(len(groups)):
        if groups[band] < 0 or members[groups[band]] == 0:
            continue
        k = count
        while k > 0 and members[groups[order[k - 1]]] > members[groups[band]]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = band
        count += 1
    return count


@kernel
def _copies(
    words: Hashes,
    begins: Starts,
    ends: Starts,
    sizes: NDArray[np.int64],
    sketches: NDArray[np.uint64],
    names: Hashes,
    name_begins: Starts,
    name_ends: Starts,
    groups: NDArray[np.int32],
    group_count: int,
    threshold: float,
    n: int,
    most_compared: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each document its survivor (-1: it is kept itself), and their similarity."""
    count, bands = groups.shape
    survivor, similarity = np.full(count, -1, np.int64), np.zeros(count)
    # Kept documents as a linked list for each group, in order of preference: its first, last and number of members. Of
    # `following` only the rows of kept documents are touched, hence in memory.
    first, last, members = (
        np.empty(group_count, np.int32),
        np.empty(group_count, np.int32),
        np.zeros(group_count, np.int32),
    )
    staying = 0
    following = np.empty((count, bands), np.int32)
    document_of = np.empty(count, np.int64)
    met = np.full(count, -1, np.int64)
    order = np.empty(bands, np.int64)
    table = np.empty(table_slots(begins, ends), np.uint64)
    seen = np.zeros(len(table), np.int64)
    unused = np.zeros(sketches.shape[1], np.uint64)
    stamp = 0
    # Largest share of the elements of two sets that may be in only one of them.
    share = (1.0 - threshold) / (1.0 + threshold)
    for document in range(count):
        size, slots, compared = sizes[document], 0, 0
        best, best_value = -1, threshold
        for k in range(_rarest_first(groups[document], members, order)):
            band = order[k]
            place = np.int64(first[groups[document, band]])
            while place >= 0 and compared < most_compared:
                other = document_of[place]
                if best_value == 1.0 and 0 <= best < other:
                    break  # later ones are not better
                if met[place] != document:
                    met[place] = document
                    compared += 1
                    both = size + sizes[other]
                    close = min(size, sizes[other]) >= best_value * max(size, sizes[other]) - 1e-6
                    if close and least_difference(sketches[document], sketches[other]) <= both * share + 1e-6:
                        if slots == 0:
                            slots = slots_for(ends[document] - begins[document])
                            insert_ngrams(words, begins[document], ends[document], n, table, unused)
                        stamp += 1
                        least = int(np.ceil(best_value * both / (1.0 + best_value) - 1e-6))
                        common = count_shared(words, begins[other], ends[other], n, table, slots, seen, stamp, least)
                        value = common / (both - common)
                        better = value > best_value or (value == best_value and (best < 0 or other < best))
                        if better and _may_replace(document, other, words, begins, ends, names, name_begins, name_ends):
                            best, best_value = other, value
                place = np.int64(following[place, band])
        if best >= 0:
            survivor[document], similarity[document] = best, best_value
            continue
        document_of[staying] = document
        for band in range(bands):
            group = groups[document, band]
            following[staying, band] = -1
            if group >= 0:
                if members[group] == 0:
                    first[group] = staying
                else:
                    following[last[group], band] = staying
                last[group] = staying
                members[group] += 1
        staying += 1
    return survivor, similarity
