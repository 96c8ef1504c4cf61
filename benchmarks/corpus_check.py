"""Recall and precision of a deduplication, by code that shares nothing with it: Python sets of tuples of words.

Similarity is the Jaccard similarity of the sets of 5-grams of lower-case words; a text of fewer words is one n-gram.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NGRAM = 5
_WORD = re.compile(r"\w+")


class Recall(NamedTuple):
    """Of `pairs` planted near pairs at or above the threshold `found` lost at least one side."""

    pairs: int
    found: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.found / self.pairs if self.pairs else 1.0


def shingles(text: str) -> set[tuple[str, ...]]:
    """The set of n-grams of a text."""
    words = _WORD.findall(text.lower())
    if not words:
        return set()
    return {tuple(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of two texts; of two without words 0."""
    if a == b and _WORD.search(a):
        return 1.0
    first, second = shingles(a), shingles(b)
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared) if shared else 0.0


def similar_pairs(texts: Sequence[str], pairs: Iterable[tuple[int, int]], threshold: float) -> list[tuple[int, int]]:
    """The pairs whose exact similarity is at or above the threshold."""
    return [(a, b) for a, b in pairs if similarity(texts[a], texts[b]) >= threshold]


def recall(pairs: Sequence[tuple[int, int]], removed: set[int]) -> Recall:
    """How many of the pairs lost a side."""
    return Recall(len(pairs), sum(a in removed or b in removed for a, b in pairs))


def wrongful(
    texts: Sequence[str], removals: Iterable[tuple[int, int]], threshold: float
) -> list[tuple[int, int, float]]:
    """(document, recorded survivor, exact similarity) of removals whose similarity is below the threshold, and of
    removals whose survivor was itself removed (similarity -1)."""
    removals = list(removals)
    gone = {document for document, _ in removals}
    found = []
    for document, survivor in removals:
        exact = -1.0 if survivor in gone else similarity(texts[document], texts[survivor])
        if exact < threshold:
            found.append((document, survivor, exact))
    return found


def unsupported(texts: Sequence[str], removed: set[int], threshold: float) -> list[int]:
    """Removed documents that are below the threshold to every document that stays: for tools that name no survivor."""
    sets: list[set[tuple[str, ...]]] = [shingles(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, grams in enumerate(sets):
        if i not in removed:
            for gram in grams:
                holders[gram].append(i)
    found = []
    for i in sorted(removed):
        shared = Counter(holder for gram in sets[i] for holder in holders.get(gram, ()))
        best = max((n / (len(sets[i]) + len(sets[j]) - n) for j, n in shared.items()), default=0.0)
        if best < threshold:
            found.append(i)
    return found
