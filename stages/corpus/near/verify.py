"""Of documents that could be copies of each other those that are, by exact measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import DedupConfig
from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.sets import jaccard, sorted_sets
from stages.corpus.kernels.sketch import least_difference, odd_sketches
from stages.corpus.kernels.words import word_hashes
from stages.corpus.near.candidates import components
from stages.corpus.texts import Texts


@dataclass(frozen=True)
class NearCopy:
    """A document to remove, the one that stays, and their measured similarity."""

    document: int
    survivor: int
    similarity: float


def near_copies(
    texts: Texts, subjects: Texts, keys: NDArray[np.uint64], components: Starts, config: DedupConfig
) -> list[NearCopy]:
    """Which of the candidates go. A document goes if it shares a key with one that stays, if their similarity is at
    least the threshold, and if that one names its subject too (`protect_subjects`); the most similar one is its
    survivor, of equals the most preferred.

    Args:
        texts: candidates, component after component, in each the most preferred first.
        subjects: what each is about, empty where nobody knows.
        keys: MinHash keys, uint64[bands, n].
        components: where components begin, int64[c + 1].

    Returns:
        By position, in the order of the documents.
    """
    words, word_starts = word_hashes(texts.data, texts.offsets)
    sets, set_starts = sorted_sets(*ngram_hashes(words, word_starts, config.ngram))
    names, name_starts = word_hashes(subjects.data, subjects.offsets)
    if not config.protect_subjects:
        name_starts = np.zeros_like(name_starts)
    survivor, similarity = _near_copies(
        sets, set_starts, words, word_starts, names, name_starts, _groups(keys), components, config.threshold
    )
    return [NearCopy(int(i), int(survivor[i]), float(similarity[i])) for i in np.flatnonzero(survivor >= 0)]


def near_duplicates_of(texts: Texts, config: DedupConfig) -> list[NearCopy]:
    """Near copies among texts in memory, preferred in the order in which they stand; nothing is protected."""
    words, starts = word_hashes(texts.data, texts.offsets)
    grams, gram_starts = ngram_hashes(words, starts, config.ngram)
    keys = band_hashes(grams, gram_starts, config.bands, config.band_rows, config.seed)
    rows, component_starts = components(len(texts), config.bands, lambda band: iter([keys[band]]), 1 << 40)
    sets, set_starts = sorted_sets(*_taken(grams, gram_starts, rows))
    nothing = np.zeros(len(rows) + 1, np.int64)
    survivor, similarity = _near_copies(
        sets,
        set_starts,
        words[:0],
        nothing,
        words[:0],
        nothing,
        _groups(keys[:, rows]),
        component_starts,
        config.threshold,
    )
    gone = np.flatnonzero(survivor >= 0)
    found = zip(rows[gone].tolist(), rows[survivor[gone]].tolist(), similarity[gone].tolist(), strict=True)
    return [NearCopy(*one) for one in found]


@kernel
def _taken(hashes: Hashes, starts: Starts, rows: NDArray[np.int64]) -> tuple[Hashes, Starts]:
    """The lists of some rows."""
    out_starts = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        out_starts[i + 1] = out_starts[i] + starts[rows[i] + 1] - starts[rows[i]]
    out = np.empty(out_starts[len(rows)], np.uint64)
    for i in range(len(rows)):
        out[out_starts[i] : out_starts[i + 1]] = hashes[starts[rows[i]] : starts[rows[i] + 1]]
    return out, out_starts


def _groups(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Keys as small numbers, int64[bands, n]: equal in a band means equal keys, -1 for one without a partner."""
    groups = np.full(keys.shape, -1, np.int64)
    first = 0
    for band in range(len(keys)):
        values, inverse, counts = np.unique(keys[band], return_inverse=True, return_counts=True)
        shared = (counts > 1) & (values != np.uint64(NO_KEY))
        numbers = np.where(shared, first + np.cumsum(shared) - 1, -1)
        groups[band] = numbers[inverse]
        first += int(shared.sum())
    return groups


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
    document: int, survivor: int, words: Hashes, word_starts: Starts, names: Hashes, name_starts: Starts
) -> bool:
    """Whether the survivor says what the document does: not if only the document names its subject."""
    begin, end = name_starts[document], name_starts[document + 1]
    if begin == end:
        return True
    mine, its = word_starts[document : document + 2], word_starts[survivor : survivor + 2]
    if _names_it(words, its[0], its[1], names, begin, end):
        return True
    first, last = name_starts[survivor], name_starts[survivor + 1]
    if last - first == end - begin and _names_it(names, first, last, names, begin, end):
        return True
    return not _names_it(words, mine[0], mine[1], names, begin, end)


@kernel
def _near_copies(
    sets: Hashes,
    set_starts: Starts,
    words: Hashes,
    word_starts: Starts,
    names: Hashes,
    name_starts: Starts,
    groups: NDArray[np.int64],
    components: Starts,
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each document its survivor (-1: it stays itself), and their similarity."""
    n = len(set_starts) - 1
    survivor, similarity = np.full(n, -1, np.int64), np.zeros(n)
    bands = len(groups)
    sketches = odd_sketches(sets, set_starts)
    # Of the elements of two sets this share may be in one of them only; a sketch tells most pairs that are further.
    share = (1.0 - threshold) / (1.0 + threshold) + 1e-9
    # The documents that stay, as a chain a group: `head` is the newest one's place, `link` the place before it.
    head = np.full(groups.max() + 1 if n else 1, -1, np.int64)
    link, met = np.empty((n, bands), np.int64), np.full(n, -1, np.int64)
    for component in range(len(components) - 1):
        for document in range(components[component], components[component + 1]):
            size = set_starts[document + 1] - set_starts[document]
            mine = sets[set_starts[document] : set_starts[document + 1]]
            best, best_value = -1, 0.0
            for band in range(bands):
                group = groups[band, document]
                other = head[group] if group >= 0 else -1
                while other >= 0:
                    if met[other] != document:
                        met[other] = document
                        its = set_starts[other + 1] - set_starts[other]
                        if least_difference(sketches[document], sketches[other]) <= (size + its) * share:
                            value = jaccard(mine, sets[set_starts[other] : set_starts[other + 1]], threshold)
                            better = value > best_value or (value == best_value and other < best)
                            if (
                                value >= threshold
                                and better
                                and _may_replace(document, other, words, word_starts, names, name_starts)
                            ):
                                best, best_value = other, value
                    other = link[other, band]
            if best >= 0:
                survivor[document], similarity[document] = best, best_value
                continue
            for band in range(bands):
                group = groups[band, document]
                if group >= 0:
                    link[document, band] = head[group]
                    head[group] = document
                else:
                    link[document, band] = -1
    return survivor, similarity
