"""Inference of a fastText classifier: sums of the vectors of words and of their character n-grams, then a tree.

As fastText does it (Joulin et al. 2016): words are separated by white space; a word in the model's dictionary counts
with its own vector and those of its n-grams, other words with those of their n-grams alone; n-grams are of code points
of `<word>`, hashed by FNV-1a over signed bytes into buckets, most of which were pruned.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

DIMENSIONS = 16
"""Columns of the model; a constant, so that the sums become single instructions."""

SEEN = 1 << 14
"""Size of the cache of word sums in a batch; a power of two."""

_BASIS = np.uint64(2166136261)
_PRIME = np.uint64(16777619)
_LOW = np.uint64(0xFFFFFFFF)
_SIGN = np.uint64(0x80)
_LEFT, _RIGHT = np.uint8(ord("<")), np.uint8(ord(">"))


@kernel
def fnv(hash: np.uint64, byte: np.uint8 | int) -> np.uint64:
    """One step of FNV-1a as fastText takes it, over signed bytes. Only the lower 32 bits of the hash count."""
    return (hash ^ ((np.uint64(byte) ^ _SIGN) - _SIGN)) * _PRIME  # type: ignore[no-any-return]


@kernel
def is_space(byte: int) -> bool:
    """fastText's white space: NUL, tab to carriage return, space."""
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@kernel
def same(a: NDArray[np.uint8], i: int, b: NDArray[np.uint8], j: int, size: int) -> bool:
    """Are `size` bytes at `a[i]` and at `b[j]` equal?"""
    for k in range(size):  # noqa: SIM110 (generators do not compile)
        if a[i + k] != b[j + k]:
            return False
    return True


@kernel
def hash_words(words: NDArray[np.uint8], places: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Open addressing over words: (a slot's word or -1, a word's hash). At most a quarter of the slots is used."""
    count = len(places) - 1
    slots = 8
    while slots < 4 * count:
        slots *= 2
    table = np.full(slots, -1, np.int32)
    hashes = np.empty(count, np.uint32)
    for i in range(count):
        value = _BASIS
        for k in range(places[i], places[i + 1]):
            value = fnv(value, words[k])
        hashes[i] = np.uint32(value & _LOW)
        slot = np.int64(value & _LOW) & (slots - 1)
        while table[slot] >= 0:
            slot = (slot + 1) & (slots - 1)
        table[slot] = i
    return table, hashes


@kernel
def add_ngrams(
    data: NDArray[np.uint8],
    begin: int,
    end: int,
    bucket_rows: NDArray[np.uint16],
    ngrams: NDArray[np.float32],
    shortest: int,
    longest: int,
    total: NDArray[np.float32],
) -> int:
    """Adds the vectors of the n-grams of `<word>`, word = data[begin:end], to total float32[dim]; returns how many."""
    buckets = np.uint64(len(bucket_rows))
    found = 0
    # `<word>` is data[begin - 1:end + 1] with its first and last byte replaced.
    for i in range(begin - 1, end + 1):
        if begin <= i < end and data[i] & 0xC0 == 0x80:
            continue
        value = _BASIS
        size = 0
        j = i
        while j <= end and size < longest:
            value = fnv(value, _LEFT if j < begin else (_RIGHT if j == end else data[j]))
            j += 1
            while j < end and data[j] & 0xC0 == 0x80:
                value = fnv(value, data[j])
                j += 1
            size += 1
            # `<` and `>` alone are not n-grams.
            if size >= shortest and not (size == 1 and (i < begin or j == end + 1)):
                row = bucket_rows[(value & _LOW) % buckets]
                if row:
                    found += 1
                    for d in range(DIMENSIONS):
                        total[d] += ngrams[row, d]
    return found


@kernel
def sum_of_words(
    words: NDArray[np.uint8],
    places: NDArray[np.int64],
    rows: NDArray[np.float32],
    bucket_rows: NDArray[np.uint16],
    ngrams: NDArray[np.float32],
    shortest: int,
    longest: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """For each known word its vector plus those of its n-grams, float32[words, dim], and how many vectors that is.

    Word 0, the end of a line, has no n-grams.
    """
    count = len(places) - 1
    sums = np.empty((count, DIMENSIONS), np.float32)
    counts = np.ones(count, np.int32)
    for i in range(count):
        for d in range(DIMENSIONS):
            sums[i, d] = rows[i, d]
        if i:
            counts[i] += add_ngrams(words, places[i], places[i + 1], bucket_rows, ngrams, shortest, longest, sums[i])
    return sums, counts


@kernel
def mean_vectors(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    limit: int,
    word_slots: NDArray[np.int32],
    word_hashes: NDArray[np.uint32],
    words: NDArray[np.uint8],
    word_places: NDArray[np.int64],
    word_sums: NDArray[np.float32],
    word_counts: NDArray[np.int32],
    bucket_rows: NDArray[np.uint16],
    ngrams: NDArray[np.float32],
    shortest: int,
    longest: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """For each text the mean of the vectors of its first `limit` characters, as one line.

    Returns (float32[n, dim], words int64[n], bytes that were read int64[n]). The end of line has a vector in the mean,
    but is not counted as a word. Words after a literal end of line (`</s>`) are ignored.
    """
    texts = len(offsets) - 1
    means = np.zeros((texts, DIMENSIONS), np.float32)
    numbers = np.zeros(texts, np.int64)
    read_bytes = np.zeros(texts, np.int64)
    # Words repeat: a cache of word sums of this batch, by hash; an entry refers to the first occurrence of its word.
    seen_place = np.zeros(SEEN, np.int64)
    seen_size = np.zeros(SEEN, np.int64)
    seen_count = np.zeros(SEEN, np.int32)
    seen_sum = np.zeros((SEEN, DIMENSIONS), np.float32)
    label = np.array([95, 95, 108, 97, 98, 101, 108, 95, 95], np.uint8)  # __label__
    slots = len(word_slots)
    for i in range(texts):
        end = offsets[i + 1]
        position = offsets[i]
        characters = 0
        vectors = 0
        ended = False
        mean = means[i]
        while position < end and characters < limit:
            if is_space(data[position]):
                position += 1
                characters += 1
                continue
            begin = position
            value = _BASIS
            while position < end:
                byte = data[position]
                if byte & 0xC0 != 0x80:
                    if characters >= limit or is_space(byte):
                        break
                    characters += 1
                value = fnv(value, byte)
                position += 1
            size = position - begin
            numbers[i] += 1
            place = np.int64(value & _LOW) & (SEEN - 1)
            if seen_size[place] != size or not same(data, begin, data, seen_place[place], size):
                seen_place[place] = begin
                seen_size[place] = size
                seen_sum[place, :] = 0
                slot = np.int64(value & _LOW) & (slots - 1)
                known = -1
                while word_slots[slot] >= 0:
                    word = word_slots[slot]
                    if (
                        word_hashes[word] == np.uint32(value & _LOW)
                        and word_places[word + 1] - word_places[word] == size
                        and same(data, begin, words, word_places[word], size)
                    ):
                        known = word
                        break
                    slot = (slot + 1) & (slots - 1)
                if known >= 0:
                    # Word 0 is the end of line, which is added below.
                    seen_count[place] = word_counts[known] if known else -1
                    seen_sum[place, :] = word_sums[known]
                elif size >= len(label) and same(data, begin, label, 0, len(label)):
                    seen_count[place] = 0
                else:
                    seen_count[place] = add_ngrams(
                        data, begin, position, bucket_rows, ngrams, shortest, longest, seen_sum[place]
                    )
            ended |= seen_count[place] < 0
            if ended:
                continue
            vectors += seen_count[place]
            for d in range(DIMENSIONS):
                mean[d] += seen_sum[place, d]
        read_bytes[i] = position - offsets[i]
        vectors += 1
        for d in range(DIMENSIONS):
            mean[d] = (mean[d] + word_sums[0, d]) * np.float32(1.0 / vectors)
    return means, numbers, read_bytes


@kernel
def log_of(x: np.float32) -> np.float32:
    """fastText's logarithm, which is never infinite."""
    return np.float32(math.log(np.float64(x) + 1e-5))


@kernel
def right_of(nodes: NDArray[np.float32], node: int, mean: NDArray[np.float32]) -> np.float32:
    """Probability of the right child of an inner node."""
    dot = np.float32(0)
    for d in range(DIMENSIONS):
        dot += nodes[node, d] * mean[d]
    return np.float32(1.0 / (1.0 + math.exp(-np.float64(dot))))


@kernel
def path_scores(
    means: NDArray[np.float32], nodes: NDArray[np.float32], path: NDArray[np.int64], right: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Logarithm of the probability of the label at the end of a path from the root, float32[n]."""
    scores = np.zeros(len(means), np.float32)
    for i in range(len(means)):
        for step in range(len(path)):
            share = right_of(nodes, path[step], means[i])
            scores[i] += log_of(share if right[step] else np.float32(1.0) - share)
    return scores


@kernel
def best_labels(
    means: NDArray[np.float32], nodes: NDArray[np.float32], children: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest label of each text and the logarithm of its probability: (int64[n], float32[n]).

    A depth-first search of the tree, likelier child first, that prunes what cannot beat the best so far.
    """
    labels = len(nodes) + 1
    best = np.zeros(len(means), np.int64)
    scores = np.full(len(means), -np.inf, np.float32)
    # At most one sibling is pending for each node on the way down, so the stack is no higher than the tree.
    stack_node = np.empty(labels + 1, np.int64)
    stack_score = np.empty(labels + 1, np.float32)
    for i in range(len(means)):
        stack_node[0] = 2 * labels - 2
        stack_score[0] = 0
        height = 1
        while height:
            height -= 1
            node, score = stack_node[height], stack_score[height]
            if score <= scores[i]:
                continue
            if node < labels:
                best[i], scores[i] = node, score
                continue
            share = right_of(nodes, node - labels, means[i])
            first = 0 if share > np.float32(0.5) else 1
            for side in (first, 1 - first):
                stack_node[height] = children[node - labels, side]
                stack_score[height] = score + log_of(share if side else np.float32(1.0) - share)
                height += 1
    return best, scores


@kernel
def may_be_upper_case(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], read_bytes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Texts that may be all or nearly all upper case, by bytes alone: few or no lower-case ASCII letters, bool[n]."""
    found = np.zeros(len(read_bytes), np.bool_)
    for i in range(len(read_bytes)):
        upper = 0
        lower = 0
        for k in range(offsets[i], offsets[i] + read_bytes[i]):
            upper += 65 <= data[k] <= 90
            lower += 97 <= data[k] <= 122
        found[i] = upper > 0.8 * (upper + lower) or (lower == 0 and read_bytes[i] > 0)
    return found
