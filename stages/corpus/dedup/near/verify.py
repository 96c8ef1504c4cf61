"""Of documents that could be copies of each other those that are, by exact measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import DedupConfig
from stages.corpus.dedup.near.candidates import components
from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.jaccard import enter, least_difference, shared, sizes_and_sketches, slots_for, table_slots
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.words import word_hashes
from stages.corpus.texts import Texts

MOST_MET = 500
"""With so many documents that stay a document is compared at most, those first that share its rarest keys. It takes
very many pages of one template to reach that: their common keys would make the comparison quadratic. What is left out
can only cost a removal, never make a wrong one."""


@dataclass(frozen=True)
class WordLists:
    """Hashes of the words of n texts, which may lie in any order: those of text i are `words[begins[i]:ends[i]]`."""

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
    """A document to remove, the one that stays, and their measured similarity."""

    document: int
    survivor: int
    similarity: float


def near_copies(
    documents: WordLists, subjects: WordLists, keys: NDArray[np.uint64], config: DedupConfig
) -> list[NearCopy]:
    """Which of some documents go.

    A document goes if it shares a key with one that stays, if their similarity is at least the threshold, and if that
    one names its subject too (`protect_subjects`); the most similar one is its survivor, of equals the most preferred.
    So no chain of small differences removes anything. Holds about 600 bytes a document (at 25 bands).

    Args:
        documents: the most preferred first (of those that share keys, directly or over others).
        subjects: what each is about, without words where nobody knows.
        keys: MinHash keys, uint64[bands, n].

    Returns:
        By position, in the order of the documents.
    """
    if not config.protect_subjects:
        subjects = WordLists.empty(len(documents.begins))
    groups, count = key_groups(np.ascontiguousarray(keys))
    sizes, sketches = sizes_and_sketches(documents.words, documents.begins, documents.ends, config.ngram)
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
        config.threshold,
        config.ngram,
        MOST_MET,
    )
    gone = np.flatnonzero(survivor >= 0)
    found = zip(gone.tolist(), survivor[gone].tolist(), similarity[gone].tolist(), strict=True)
    return [NearCopy(*one) for one in found]


def near_duplicates_of(texts: Texts, config: DedupConfig) -> list[NearCopy]:
    """Near copies among texts in memory, preferred in the order in which they stand; nothing is protected."""
    words, starts = word_hashes(texts.data, texts.offsets)
    grams, gram_starts = ngram_hashes(words, starts, config.ngram)
    keys = band_hashes(grams, gram_starts, config.bands, config.band_rows, config.seed)
    rows, _ = components(len(texts), config.bands, lambda band: keys[band])
    rows = np.sort(rows)
    candidates = WordLists(words, starts[rows], starts[rows + 1])
    copies = near_copies(candidates, WordLists.empty(len(rows)), keys[:, rows], config)
    places = rows.tolist()
    return [NearCopy(places[copy.document], places[copy.survivor], copy.similarity) for copy in copies]


@kernel
def key_groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], int]:
    """Keys as small numbers, int32[n, bands]: equal means equal keys in that band, -1 a key that no other has.

    Returns:
        The numbers, and how many there are.
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
    """Whether the words from `first` to `last` hold the words of a name in a row."""
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
    """Whether the survivor says what the document does: not if only the document names its subject."""
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
    """Fills `order` with the bands in which others that stay share a document's key, the fewest first; their number."""
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
    most_met: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each document its survivor (-1: it stays itself), and their similarity."""
    count, bands = groups.shape
    survivor, similarity = np.full(count, -1, np.int64), np.zeros(count)
    # The documents that stay, as a chain a group in order of preference: first, last and number of its members. Of
    # `following` only the rows of documents that stay are ever touched, hence in memory.
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
    # Of the elements of two sets this share may be in one of them only.
    share = (1.0 - threshold) / (1.0 + threshold)
    for document in range(count):
        size, slots, met_now = sizes[document], 0, 0
        best, best_value = -1, threshold
        for k in range(_rarest_first(groups[document], members, order)):
            band = order[k]
            place = np.int64(first[groups[document, band]])
            while place >= 0 and met_now < most_met:
                other = document_of[place]
                if best_value == 1.0 and 0 <= best < other:
                    break  # those that follow are no better
                if met[place] != document:
                    met[place] = document
                    met_now += 1
                    both = size + sizes[other]
                    close = min(size, sizes[other]) >= best_value * max(size, sizes[other]) - 1e-6
                    if close and least_difference(sketches[document], sketches[other]) <= both * share + 1e-6:
                        if slots == 0:
                            slots = slots_for(ends[document] - begins[document])
                            enter(words, begins[document], ends[document], n, table, unused)
                        stamp += 1
                        least = int(np.ceil(best_value * both / (1.0 + best_value) - 1e-6))
                        common = shared(words, begins[other], ends[other], n, table, slots, seen, stamp, least)
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
