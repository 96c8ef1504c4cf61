"""Near copies: MinHash finds candidates, the exact Jaccard similarity with the document that stays decides.

Greedy, in the order of preference: a document goes only if it is similar enough to one that itself stays, so no chain
of small differences removes anything (transitive clusters do). Signatures are rensa's R-MinHash over word n-grams;
candidates agree in one of the bands of the signature (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import DedupConfig
from stages.corpus.words import Hashes, jaccard

Signatures = NDArray[np.uint32]
MARGIN = 0.12
"""Candidates whose estimated similarity lies more than this below the threshold are not measured: three standard
deviations of the estimate at 128 permutations and similarity 0.7."""


@dataclass(frozen=True)
class NearCopy:
    """A document to remove (by position), the one that stays, and their measured similarity."""

    document: int
    survivor: int
    similarity: float


def signature(sets: Sequence[Hashes], config: DedupConfig) -> Signatures:
    """R-MinHash signatures of sets of n-gram hashes, uint32[n, permutations]."""
    from rensa import RMinHash

    rows = [item.tolist() for item in sets]
    matrix = RMinHash.digest_matrix_from_token_hash_sets(rows, config.permutations, config.seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(sets), config.permutations)


def bands(signatures: Signatures, config: DedupConfig) -> NDArray[np.uint64]:
    """One number a band, uint64[n, bands]: equal numbers mean equal rows of the signature in that band."""
    rows = config.band_rows
    count = signatures.shape[1] // rows
    parts = signatures[:, : count * rows].reshape(len(signatures), count, rows).astype(np.uint64)
    out = np.zeros((len(signatures), count), np.uint64)
    for row in range(rows):
        out *= np.uint64(0x9E3779B97F4A7C15)
        out += parts[:, :, row] + np.uint64(1)
        out ^= out >> np.uint64(32)
    return out


def with_partners(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which documents share at least one band with another one, bool[n]."""
    found = np.zeros(len(keys), bool)
    for band in range(keys.shape[1]):
        _, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        found |= counts[inverse] > 1
    return found


def near_copies(
    order: Sequence[int],
    signatures: Signatures,
    keys: NDArray[np.uint64],
    shingles_of: Callable[[int], Hashes],
    may_replace: Callable[[int, int], bool],
    config: DedupConfig,
) -> list[NearCopy]:
    """Which documents go.

    Args:
        order: positions of the documents, the most preferred first.
        signatures, keys: per position.
        shingles_of: a document's n-grams.
        may_replace: `(document, survivor)`: whether the second says what the first does (see `protect_subjects`).
    """
    stay: dict[tuple[int, int], list[int]] = {}
    removed = []
    for document in order:
        candidates = sorted({other for key in enumerate(keys[document].tolist()) for other in stay.get(key, ())})
        copy = _copy_of(document, candidates, signatures, shingles_of, may_replace, config) if candidates else None
        if copy:
            removed.append(copy)
            continue
        for key in enumerate(keys[document].tolist()):
            stay.setdefault(key, []).append(document)
    return removed


def _copy_of(
    document: int,
    candidates: list[int],
    signatures: Signatures,
    shingles_of: Callable[[int], Hashes],
    may_replace: Callable[[int, int], bool],
    config: DedupConfig,
) -> NearCopy | None:
    """The first candidate, by estimated similarity, that is similar enough by exact measure."""
    estimates = (signatures[candidates] == signatures[document]).mean(axis=1)
    for i in np.argsort(-estimates, kind="stable"):
        if estimates[i] < config.threshold - MARGIN:
            return None
        if not may_replace(document, candidates[i]):
            continue
        similarity = jaccard(shingles_of(document), shingles_of(candidates[i]))
        if similarity >= config.threshold:
            return NearCopy(document, candidates[i], similarity)
    return None
