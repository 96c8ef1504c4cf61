"""Word n-grams that repeat: Gopher's other repetition rules, as datatrove has them, over tokens' hashes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.piece_facts import BASE, FIRST, TOKENS, FactTable
from stages.corpus.kernels.pieces import SPREAD, Keys, Numbers, Places

TOP, REPEATED = 1, 2
"""Codes of the rules."""

Lengths = NDArray[np.int32]
Fractions = NDArray[np.float64]


@kernel
def token_counts(firsts: Places, pieces: Numbers, facts: FactTable) -> Places:
    """Tokens of each text, int64[n]."""
    counts = np.zeros(len(firsts) - 1, np.int64)
    for text in range(len(counts)):
        for k in range(firsts[text], firsts[text + 1]):
            counts[text] += facts[pieces[k], TOKENS]
    return counts


@kernel
def repeated_ngrams(
    firsts: Places, pieces: Numbers, facts: FactTable, hashes: Keys, powers: Keys, lengths: Lengths, characters: Places,
    top_sizes: Places, top_limits: Fractions, sizes: Places, limits: Fractions,
    alive: NDArray[np.bool_], codes: Numbers, values: Fractions, words: Numbers,
) -> None:  # fmt: skip
    """The first n-gram rule that each text breaks.

    The commonest n-gram (the first of several) may take `top_limits` of the text's characters, joined with spaces;
    n-grams that stand earlier too, joined without spaces and without overlap, `limits`. An n-gram is known by the
    polynomial hash of its characters, so that a longer one's follows from a shorter one's.

    Most texts need two counts of nine: a bound from the shortest n-grams shows that longer ones cannot break a limit.

    Args:
        firsts, pieces, facts: see `walk_pieces` and `state_facts`.
        hashes, powers, lengths: of tokens, see `state_facts`.
        characters: of each text.
        top_sizes, sizes: n of each rule, ascending.
        alive: texts to look at.
        codes, values, words: written for texts that break a rule: which, what was measured, and n.
    """
    room = 1024
    grams, joined, joined_powers = np.empty(room, np.uint64), np.empty(room, np.uint64), np.empty(room, np.uint64)
    token_hashes, token_powers, places = (
        np.empty(room, np.uint64),
        np.empty(room, np.uint64),
        np.empty(room + 1, np.int64),
    )
    table, first, count = np.empty(2 * room, np.uint64), np.empty(2 * room, np.int32), np.empty(2 * room, np.int32)
    for text in range(len(firsts) - 1):
        if not alive[text]:
            continue
        n = 0
        for k in range(firsts[text], firsts[text + 1]):
            n += facts[pieces[k], TOKENS]
        if not n:
            continue
        if n > room:
            while room < n:
                room *= 2
            grams, joined, joined_powers = (
                np.empty(room, np.uint64),
                np.empty(room, np.uint64),
                np.empty(room, np.uint64),
            )
            token_hashes, token_powers = np.empty(room, np.uint64), np.empty(room, np.uint64)
            places = np.empty(room + 1, np.int64)
            table, first, count = (
                np.empty(2 * room, np.uint64),
                np.empty(2 * room, np.int32),
                np.empty(2 * room, np.int32),
            )
        slots = 64
        while slots < 2 * n:
            slots *= 2
        n, place = 0, 0
        for k in range(firsts[text], firsts[text + 1]):
            row = facts[pieces[k]]
            for token in range(row[FIRST], row[FIRST] + row[TOKENS]):
                token_hashes[n], token_powers[n] = hashes[token], powers[token]
                places[n] = place
                place += lengths[token]
                n += 1
        places[n] = place
        code, value, size = _top(
            token_hashes, token_powers, places, n, characters[text], top_sizes, top_limits, grams, table[:slots],
            first[:slots], count[:slots],
        )  # fmt: skip
        if not code:
            code, value, size = _repeated(
                token_hashes,
                token_powers,
                places,
                n,
                characters[text],
                sizes,
                limits,
                joined,
                joined_powers,
                table[:slots],
            )
        if code:
            codes[text], values[text], words[text] = code, value, size


@kernel
def _slot(h: np.uint64, mask: int) -> int:
    h = (h ^ (h >> np.uint64(32))) * np.uint64(SPREAD)
    return np.int64(h >> np.uint64(32)) & mask


@kernel
def _top(
    hashes: Keys, powers: Keys, places: Places, n: int, characters: int, sizes: Places, limits: Fractions, grams: Keys,
    table: Keys, first: Lengths, count: Lengths,
) -> tuple[int, float, int]:  # fmt: skip
    """The commonest n-gram: code, fraction of characters, n; code 0 if no limit is broken."""
    mask = len(table) - 1
    base = np.uint64(BASE)
    done, most = 0, n
    for rule in range(len(sizes)):
        size = sizes[rule]
        total = n - size + 1
        if total <= 0:
            continue
        # No longer n-gram stands more often than the commonest shorter one.
        longest = 0
        for i in range(total):
            length = places[i + size] - places[i]
            if length > longest:
                longest = length
        if most * (longest + size - 1) / characters <= limits[rule]:
            continue
        for i in range(total):
            h = grams[i] if done else np.uint64(0)
            for j in range(i + done, i + size):
                h = (h * base + np.uint64(0x21)) * powers[j] + hashes[j]
            grams[i] = h
        done = size
        count[:] = 0
        best, best_first = 0, 0
        for i in range(total):
            h = grams[i]
            slot = _slot(h, mask)
            while count[slot] and table[slot] != h:
                slot = (slot + 1) & mask
            if not count[slot]:
                table[slot], first[slot] = h, i
            count[slot] += 1
            if count[slot] > best or (count[slot] == best and first[slot] < best_first):
                best, best_first = count[slot], first[slot]
        most = best
        length = places[best_first + size] - places[best_first] + size - 1
        if length * best / characters > limits[rule]:
            return TOP, length * best / characters, size
    return 0, 0.0, 0


@kernel
def _repeated(
    hashes: Keys, powers: Keys, places: Places, n: int, characters: int, sizes: Places, limits: Fractions, joined: Keys,
    joined_powers: Keys, table: Keys,
) -> tuple[int, float, int]:  # fmt: skip
    """N-grams that stand earlier too: code, fraction of characters, n; code 0 if no limit is broken."""
    done = 0
    for rule in range(len(sizes)):
        size = sizes[rule]
        if n < size:
            # datatrove measures 0 here, which no limit forbids.
            return 0, 0.0, 0
        for i in range(n - size + 1):
            h, power = np.uint64(0), np.uint64(1)
            if done:
                h, power = joined[i], joined_powers[i]
            for j in range(i + done, i + size):
                h = h * powers[j] + hashes[j]
                power *= powers[j]
            joined[i], joined_powers[i] = h, power
        if not done:
            lowest = limits[0]
            for other in range(1, len(limits)):
                lowest = min(lowest, limits[other])
            if _covered(joined, places, n, size, table) / characters <= lowest:
                return 0, 0.0, 0
        done = size
        value = _jumping(joined, places, n, size, table) / characters
        if value > limits[rule]:
            return REPEATED, value, size
    return 0, 0.0, 0


@kernel
def _covered(joined: Keys, places: Places, n: int, size: int, table: Keys) -> int:
    """Characters of the tokens inside n-grams that stand earlier too, overlaps and all: no longer n-grams have more."""
    mask = len(table) - 1
    table[:] = 0
    characters, until = 0, 0
    for i in range(n - size + 1):
        h = joined[i] | np.uint64(1 << 63)
        slot = _slot(h, mask)
        while table[slot] and table[slot] != h:
            slot = (slot + 1) & mask
        if table[slot]:
            characters += places[i + size] - places[max(i, until)]
            until = i + size
        else:
            table[slot] = h
    return characters


@kernel
def _jumping(joined: Keys, places: Places, n: int, size: int, table: Keys) -> int:
    """datatrove's `find_all_duplicate`: characters of n-grams seen before; it goes on behind such a one."""
    mask = len(table) - 1
    table[:] = 0
    characters, i = 0, 0
    while i < n - size + 1:
        h = joined[i] | np.uint64(1 << 63)
        slot = _slot(h, mask)
        while table[slot] and table[slot] != h:
            slot = (slot + 1) & mask
        if table[slot]:
            characters += places[i + size] - places[i]
            i += size
        else:
            table[slot] = h
            i += 1
    return characters
