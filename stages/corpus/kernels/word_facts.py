"""What rules need to know about a word, computed once for each different word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import (
    ALPHABETIC,
    PUNCTUATION,
    SENTENCE_END,
    SYMBOL,
    TABLE,
    Classes,
    code_point,
)
from stages.corpus.kernels.word_split import OFFSET, PRIME, Bytes, Keys, Numbers, Places

SIZE, CHARACTERS, FIRST, TOKENS, PLAIN, PLAIN_CHARACTERS, ALPHABETIC_TOKENS, HASHES, ELLIPSES, FLAGS, FRESH, ENDED = (
    range(12)
)
"""Columns of facts: bytes; characters; first token and number of tokens; tokens that are not only symbols, and their
characters; tokens with a letter; `#`; ellipses; the flags below; the sentencizer's transition from each state."""
COLUMNS = 16
"""A row fills one cache line."""

BULLET = 1
"""Begins with a bullet."""
ENDS_DOTS = 2
"""Ends with `...`."""
ENDS_ELLIPSIS = 4
"""Ends with `...` or an ellipsis."""
ENDS_MARK = 8
"""Ends with terminal punctuation as C4 defines it."""
SQUARE = 16
"""Has a `[`, which may begin a citation."""
CURLY = 32
"""Has a `{`."""
PHRASE = 64
"""Has the rarest word of a phrase that C4 searches for (`javascript`, `lorem ipsum`, `terms of use`, ...)."""
STOP_WORD = 256
"""The bit of the first of Gopher's stop words; the others follow."""

BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
"""A token's hash is the sum of its bytes, each plus 1, times BASE to the power of its place, modulo 2^64: the hash of
any run of tokens, joined, follows from sums over tokens."""

HASH, POWER, UNPOWER, LENGTH = range(4)
"""Columns of tokens: hash; BASE and INVERSE to the power of the token's bytes; characters."""

FactTable = NDArray[np.int32]


@kernel
def write_facts(
    data: Bytes, begins: Places, ends: Places, rows: Places, counts: Numbers, sizes: Numbers, classes: Classes,
    stop_words: Keys, facts: FactTable, tokens: Keys, token: int,
) -> int:  # fmt: skip
    """Writes the facts of words.

    Args:
        data, begins, ends: the words.
        rows: row of `facts` for each word.
        counts, sizes: tokens of each word, and bytes of each token, one after another.
        stop_words: FNV-1a hashes of up to 8 stop words.
        facts: int32[..., COLUMNS].
        tokens: uint64[..., 4], see HASH and the others.
        token: index of the first token to write.

    Returns:
        Index of the next token.
    """
    source = 0
    base = np.uint64(BASE)
    for k in range(len(begins)):
        begin, end = begins[k], ends[k]
        row = facts[rows[k]]
        row[:] = 0
        row[SIZE], row[FIRST], row[TOKENS] = end - begin, token, counts[k]
        flags = _flags(data, begin, end)
        hash_signs, ellipses = _symbols(data, begin, end)
        row[HASHES], row[ELLIPSES] = hash_signs, ellipses
        fresh, ended = 0, 0  # sentences begun, twice, and whether the last has ended
        ended = 1
        i = begin
        for _ in range(counts[k]):
            token_end = i + sizes[source]
            source += 1
            h, power, inverse, name = np.uint64(0), np.uint64(1), np.uint64(1), np.uint64(OFFSET)
            characters, bits, every = 0, 0, 0xFF
            first_bits = 0
            while i < token_end:
                code, size = code_point(data, i, end)
                for j in range(i, i + size):
                    byte = np.uint64(data[j])
                    h += (byte + np.uint64(1)) * power
                    power *= base
                    inverse *= np.uint64(INVERSE)
                    name = (name ^ byte) * np.uint64(PRIME)
                found = int(classes[code]) if code < TABLE else 0
                bits |= found
                every &= found
                first_bits = found
                characters += 1
                i += size
            tokens[token, HASH], tokens[token, POWER], tokens[token, UNPOWER] = h, power, inverse
            tokens[token, LENGTH] = characters
            token += 1
            row[CHARACTERS] += characters
            if not every & SYMBOL:
                row[PLAIN] += 1
                row[PLAIN_CHARACTERS] += characters
            if bits & ALPHABETIC:
                row[ALPHABETIC_TOKENS] += 1
            for number in range(len(stop_words)):
                if stop_words[number] == name:
                    flags |= STOP_WORD << number
            ends_sentence = characters == 1 and (first_bits & SENTENCE_END) != 0
            other = not every & PUNCTUATION and not ends_sentence
            fresh = _sentences(fresh, ends_sentence, other)
            ended = _sentences(ended, ends_sentence, other)
        row[FRESH], row[ENDED] = fresh, ended
        row[FLAGS] = flags
    return token


@kernel
def _sentences(state: int, ends_sentence: bool, other: bool) -> int:
    """One step of spaCy's sentencizer: `state` is twice the number of sentences begun, plus 1 if the last has ended."""
    if state & 1:
        return state + 1 if other else state
    return state + 1 if ends_sentence else state


@kernel
def _flags(data: Bytes, begin: int, end: int) -> int:
    flags = 0
    size = end - begin
    last = data[end - 1]
    if data[begin] == 0x2D or (
        size >= 3 and data[begin] == 0xE2 and data[begin + 1] == 0x80 and data[begin + 2] == 0xA2
    ):
        flags |= BULLET
    if size >= 3 and last == 0x2E and data[end - 2] == 0x2E and data[end - 3] == 0x2E:
        flags |= ENDS_DOTS | ENDS_ELLIPSIS
    if size >= 3 and last == 0xA6 and data[end - 2] == 0x80 and data[end - 3] == 0xE2:
        flags |= ENDS_ELLIPSIS
    if last == 0x2E or last == 0x3F or last == 0x21 or last == 0x22 or last == 0x27:
        flags |= ENDS_MARK
    for i in range(begin, end):
        byte = data[i]
        if byte == 0x5B:
            flags |= SQUARE
        elif byte == 0x7B:
            flags |= CURLY
        elif not flags & PHRASE and _key_word_at(data, i, end):
            flags |= PHRASE
    return flags


@kernel
def _symbols(data: Bytes, begin: int, end: int) -> tuple[int, int]:
    """Hash signs, and ellipses: `...` counted without overlap, and the character."""
    hash_signs, ellipses, dots = 0, 0, 0
    for i in range(begin, end):
        byte = data[i]
        if byte == 0x23:
            hash_signs += 1
        dots = dots + 1 if byte == 0x2E else 0
        if dots == 3:
            ellipses += 1
            dots = 0
        if byte == 0xA6 and i - begin >= 2 and data[i - 1] == 0x80 and data[i - 2] == 0xE2:
            ellipses += 1
    return hash_signs, ellipses


KEY_WORDS = np.frombuffer(b"javascript ipsum terms policy cookies ", np.uint8)
"""The rarest words of C4's phrases, each followed by a space."""


@kernel
def lower_at(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """The character at data[i] in lower case, and its size in bytes: `str.lower` maps the Kelvin sign to `k`."""
    byte = int(data[i])
    if 65 <= byte <= 90:
        return byte + 32, 1
    if byte == 0xE2 and i + 2 < end and data[i + 1] == 0x84 and data[i + 2] == 0xAA:
        return 0x6B, 3
    return byte, 1


@kernel
def words_begin_at(data: Bytes, i: int, end: int, words: Bytes, first: int, last: int) -> bool:
    """Is words[first:last] (lower case) at data[i], ignoring case?"""
    for j in range(first, last):
        if i >= end:
            return False
        byte, size = lower_at(data, i, end)
        if byte != words[j]:
            return False
        i += size
    return True


@kernel
def _key_word_at(data: Bytes, i: int, end: int) -> bool:
    first = 0
    byte, _ = lower_at(data, i, end)
    if byte != 0x6A and byte != 0x69 and byte != 0x74 and byte != 0x70 and byte != 0x63:
        return False
    for j in range(len(KEY_WORDS)):
        if KEY_WORDS[j] == 0x20:
            if words_begin_at(data, i, end, KEY_WORDS, first, j):
                return True
            first = j + 1
    return False
