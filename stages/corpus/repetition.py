"""A quick proof that a text cannot break Gopher's n-gram repetition limits; most texts have it.

datatrove counts n-grams as Python strings, which is most of what all filters cost together. Here the same words are
counted as hashes, and two bounds are taken that are never below what datatrove would measure:

- repeated n-grams of 5 and more words lie inside words that some repeated n-gram of the shortest such length covers;
- the commonest n-gram takes its count times the length of the longest n-gram of that count.

Only a text above a bound is given to datatrove's filter for the n-gram rules.
"""

from __future__ import annotations

import numpy as np

from stages.corpus.config import GopherRepetitionConfig
from stages.corpus.words import ngram_hashes, word_hashes


def may_repeat(text: str, words: list[str], config: GopherRepetitionConfig) -> bool:
    """False if no n-gram rule of `config` can remove the text.

    Args:
        words: the words that the filter would see.
    """
    hashes = word_hashes(words)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for n, limit in config.top_ngrams.items():
        grams = ngram_hashes(hashes, n)
        if not len(grams):
            continue
        _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
        times = counts[inverse]
        # datatrove joins these with single spaces.
        size = ends[n:] - ends[:-n] + (n - 1)
        top = counts.max()
        if top * size[times == top].max() > limit * len(text):
            return True
    if not config.duplicate_ngrams:
        return False
    shortest = min(config.duplicate_ngrams)
    grams = ngram_hashes(hashes, shortest)
    if not len(grams):
        return False
    _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    starts = np.flatnonzero(counts[inverse] > 1)
    covered = np.zeros(len(words) + 1, np.int64)
    np.add.at(covered, starts, 1)
    np.add.at(covered, starts + shortest, -1)
    characters = int(lengths[np.cumsum(covered[:-1]) > 0].sum())
    return characters > min(config.duplicate_ngrams.values()) * len(text)
