"""Repeated n-grams of tokens: Gopher's other repetition rules, as datatrove implements them, over tokens' hashes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.word_facts import (
    BASE,
    FIRST,
    HASH,
    INVERSE,
    LENGTH,
    POWER,
    TOKENS,
    UNPOWER,
    FactTable,
)
from stages.corpus.kernels.word_split import SPREAD, Keys, Numbers, Places

TOP, REPEATED = 1, 2
"""Codes of the rules."""

Fractions = NDArray[np.float64]


@kernel
def token_counts(firsts: Places, word_ids: Numbers, facts: FactTable) -> Places:
    """Tokens of each text, int64[n]."""
    counts = np.zeros(len(firsts) - 1, np.int64)
    for text in range(len(counts)):
        for k in range(firsts[text], firsts[text + 1]):
            counts[text] += facts[word_ids[k], TOKENS]
    return counts


@kernel
def repeated_ngrams(
    firsts: Places, word_ids: Numbers, facts: FactTable, tokens: Keys, token_totals: Places, characters: Places,
    top_sizes: Places, top_limits: Fractions, sizes: Places, limits: Fractions, alive: NDArray[np.bool_],
    codes: Numbers, values: Fractions, broken: Numbers,
) -> None:  # fmt: skip
    """The first n-gram rule that each text breaks.

    The most common n-gram (the first of several) may take `top_limits` of the text's characters, joined with spaces;
    n-grams that repeat an earlier one, joined without spaces and without overlap, `limits`. An n-gram is identified by
    the hash of its characters: a difference of prefix sums of the tokens' hashes, each times BASE to the power of its
    position in the text, divided by the power of the n-gram's position.

    Most texts need two counts of nine: bounds from shorter n-grams show that longer ones cannot exceed a limit.

    Args:
        firsts, word_ids, facts, tokens: see `split_words` and `write_facts`.
        token_totals: tokens of each text, see `token_counts`.
        characters: of each text.
        top_sizes, sizes: n of each rule, ascending.
        alive: texts to check.
        codes, values, broken: written for texts that break a rule: its code, the measured value, and n.
    """
    room = 1024
    for text in range(len(token_totals)):
        if alive[text]:
            room = max(room, token_totals[text])
    spaced, joined = np.empty((room + 1, 2), np.uint64), np.empty((room + 1, 2), np.uint64)
    places = np.empty(room + 1, np.int64)
    most = 64
    while most < 2 * room:
        most *= 2
    table, counts, slots = np.empty(most, np.uint64), np.empty(most, np.int32), np.empty(room, np.int32)
    for text in range(len(token_totals)):
        n = token_totals[text]
        if not alive[text] or not n:
            continue
        _sums(firsts[text], firsts[text + 1], word_ids, facts, tokens, spaced, joined, places)
        size = 64
        while size < 2 * n:
            size *= 2
        code, value, gram = _check_top(
            spaced[: n + 1],
            places[: n + 1],
            characters[text],
            top_sizes,
            top_limits,
            table[:size],
            counts[:size],
            slots[:n],
        )
        if not code:
            code, value, gram = _check_repeated(
                joined[: n + 1], places[: n + 1], characters[text], sizes, limits, table[:size]
            )
        if code:
            codes[text], values[text], broken[text] = code, value, gram


@kernel
def _sums(
    begin: int, end: int, word_ids: Numbers, facts: FactTable, tokens: Keys, spaced: Keys, joined: Keys, places: Places
) -> None:
    """Prefix sums of hashes before each token, and INVERSE to the power of its position; with and without spaces."""
    n, place = 0, np.int64(0)
    sum_spaced, power_spaced, unpower_spaced = np.uint64(0), np.uint64(1), np.uint64(1)
    sum_joined, power_joined, unpower_joined = np.uint64(0), np.uint64(1), np.uint64(1)
    for k in range(begin, end):
        row = facts[word_ids[k]]
        for number in range(row[FIRST], row[FIRST] + row[TOKENS]):
            token = tokens[number]
            places[n] = place
            spaced[n, 0], spaced[n, 1] = sum_spaced, unpower_spaced
            joined[n, 0], joined[n, 1] = sum_joined, unpower_joined
            n += 1
            place += np.int64(token[LENGTH])
            sum_spaced += (token[HASH] + np.uint64(0x21) * token[POWER]) * power_spaced
            power_spaced *= token[POWER] * np.uint64(BASE)
            unpower_spaced *= token[UNPOWER] * np.uint64(INVERSE)
            sum_joined += token[HASH] * power_joined
            power_joined *= token[POWER]
            unpower_joined *= token[UNPOWER]
    places[n] = place
    spaced[n, 0], joined[n, 0] = sum_spaced, sum_joined


@kernel
def _mix(h: np.uint64) -> np.uint64:
    """Mixes a hash; never 0, which means an empty slot."""
    h = (h ^ (h >> np.uint64(32))) * np.uint64(SPREAD)
    return (h ^ (h >> np.uint64(29))) | np.uint64(1 << 63)


@kernel
def _check_top(
    sums: Keys, places: Places, characters: int, sizes: Places, limits: Fractions, table: Keys, counts: Numbers,
    slots: Numbers,
) -> tuple[int, float, int]:  # fmt: skip
    """The most common n-gram: code, fraction of characters, n; code 0 if no limit is exceeded."""
    mask = len(table) - 1
    n = len(places) - 1
    done = 0
    for rule in range(len(sizes)):
        size = sizes[rule]
        total = n - size + 1
        if total <= 0:
            continue
        if done:
            # An n-gram occurs no more often than the shorter ones at its beginning and end.
            bound = 0
            for i in range(total):
                times = min(counts[slots[i]], counts[slots[i + size - done]])
                bound = max(bound, times * (places[i + size] - places[i] + size - 1))
            if bound / characters <= limits[rule]:
                continue
        done = size
        counts[:] = 0
        for i in range(total):
            h = _mix((sums[i + size, 0] - sums[i, 0]) * sums[i, 1])
            slot = np.int64(h) & mask
            while counts[slot] and table[slot] != h:
                slot = (slot + 1) & mask
            table[slot] = h
            counts[slot] += 1
            slots[i] = slot
        best, first = 0, 0
        for i in range(total):
            if counts[slots[i]] > best:
                best, first = counts[slots[i]], i
        value = best * (places[first + size] - places[first] + size - 1) / characters
        if value > limits[rule]:
            return TOP, value, size
    return 0, 0.0, 0


@kernel
def _check_repeated(
    sums: Keys, places: Places, characters: int, sizes: Places, limits: Fractions, table: Keys
) -> tuple[int, float, int]:
    """N-grams that repeat an earlier one: code, fraction of characters, n; code 0 if no limit is exceeded."""
    n = len(places) - 1
    for rule in range(len(sizes)):
        size = sizes[rule]
        if n < size:
            # datatrove measures 0 here, which never exceeds a limit.
            return 0, 0.0, 0
        if rule == 0:
            lowest = limits[0]
            for limit in limits:
                lowest = min(lowest, limit)
            if _covered_characters(sums, places, size, table) / characters <= lowest:
                return 0, 0.0, 0
        value = _duplicate_characters(sums, places, size, table) / characters
        if value > limits[rule]:
            return REPEATED, value, size
    return 0, 0.0, 0


@kernel
def _covered_characters(sums: Keys, places: Places, size: int, table: Keys) -> int:
    """Characters of tokens in n-grams that repeat an earlier one, with overlaps: an upper bound for longer n-grams."""
    mask = len(table) - 1
    table[:] = 0
    characters, until = 0, 0
    for i in range(len(places) - size):
        h = _mix((sums[i + size, 0] - sums[i, 0]) * sums[i, 1])
        slot = np.int64(h) & mask
        while table[slot] and table[slot] != h:
            slot = (slot + 1) & mask
        if table[slot]:
            characters += places[i + size] - places[max(i, until)]
            until = i + size
        table[slot] = h
    return characters


@kernel
def _duplicate_characters(sums: Keys, places: Places, size: int, table: Keys) -> int:
    """datatrove's `find_all_duplicate`: characters of n-grams seen before; it continues after each of them."""
    mask = len(table) - 1
    table[:] = 0
    characters, i = 0, 0
    while i < len(places) - size:
        h = _mix((sums[i + size, 0] - sums[i, 0]) * sums[i, 1])
        slot = np.int64(h) & mask
        while table[slot] and table[slot] != h:
            slot = (slot + 1) & mask
        if table[slot]:
            characters += places[i + size] - places[i]
            i += size
        else:
            table[slot] = h
            i += 1
    return characters
