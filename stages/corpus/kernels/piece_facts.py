"""What rules ask about a piece of text between white space, worked out once a piece."""

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
    count_characters,
)
from stages.corpus.kernels.pieces import OFFSET, PRIME, Bytes, Keys, Numbers, Places, hash_bytes

SIZE, CHARACTERS, FIRST, TOKENS, PLAIN, PLAIN_CHARACTERS, ALPHABETIC_TOKENS, HASHES, ELLIPSES, FLAGS, FRESH, ENDED = (
    range(12)
)
"""Columns of facts: bytes; characters; first token and number of tokens; tokens that are not only symbols, and their
characters; tokens with a letter; `#`; ellipses; flags below; the sentencizer's step from either of its states."""
COLUMNS = 16
"""A row is a line of cache."""

BULLET = 1
"""Begins with a bullet."""
ENDS_DOTS = 2
"""Ends with `...`."""
ENDS_ELLIPSIS = 4
"""Ends with `...` or an ellipsis."""
ENDS_MARK = 8
"""Ends as C4 wants lines to end."""
SQUARE = 16
"""Has a `[`: maybe a citation."""
CURLY = 32
"""Has a `{`."""
PHRASE = 64
"""Has the rarest word of a phrase that C4 looks for (in `javascript`, `lorem ipsum`, `terms of use`, ...)."""
STOP_WORD = 256
"""The bit of the first of Gopher's stop words; the others follow."""

BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
"""A token's hash is the sum of its bytes, each plus 1, times BASE to the power of its place, modulo 2^64: the hash of
any run of tokens, joined, follows from sums over tokens."""

HASH, POWER, UNPOWER, LENGTH = range(4)
"""Columns of tokens: hash; BASE and INVERSE to the power of the token's bytes; characters."""

LONG = 1000
"""Characters of a piece from which on spaCy is not asked: words that long are no words, and spaCy's time grows with
their square. They are split where a symbol (PUNCTUATION_SET) meets something else, and after every LONG characters."""
HUGE = 1_000_000
"""Characters from which on they are only cut after every LONG characters, so that memory stays small."""

FactTable = NDArray[np.int32]


@kernel
def plain_tokens(
    data: Bytes, begins: Places, ends: Places, special: Keys, classes: Classes, counts: Numbers, sizes: Numbers
) -> int:
    """Splits the pieces that need no spaCy: plain words with a few marks around them, and very long pieces.

    Plain are, in ASCII, `(`? then letters, letters with hyphens between, digits, or letters and then digits; then `)`?
    and one of `.,;:?!`?. spaCy splits the marks off and splits at hyphens, except before a full stop after a single
    capital letter, and unless some of the tokens that stand together are one of its special cases.

    Args:
        special: sorted hashes (`hash_bytes`) of spaCy's special cases.
        counts: written: tokens of each piece; 0 if spaCy must be asked.
        sizes: written: bytes of each token; must hold the bytes of all pieces.

    Returns:
        How many tokens were written.
    """
    written = 0
    for k in range(len(begins)):
        begin, end = begins[k], ends[k]
        counts[k] = 0
        if end - begin >= LONG:
            characters = count_characters(data, begin, end)
            if characters >= LONG:
                first = written
                written = _long_tokens(data, begin, end, characters >= HUGE, classes, sizes, written)
                counts[k] = written - first
                continue
        first = written
        i, last = begin, end
        if data[i] == 0x28:
            i += 1
        mark, bracket = 0, 0
        if last > i and data[last - 1] < 0x80 and _is_mark(data[last - 1]):
            mark = 1
            last -= 1
        if last > i and data[last - 1] == 0x29:
            bracket = 1
            last -= 1
        core = i
        if last <= core or not _is_plain(data, core, last):
            continue
        if mark and not bracket and data[end - 1] == 0x2E:
            # A full stop after a single capital letter is part of an initial.
            letter = data[last - 1]
            if 65 <= letter <= 90 and not (last - 2 >= core and 65 <= data[last - 2] <= 90):
                continue
        if core > begin:
            sizes[written] = 1
            written += 1
        start = core
        for j in range(core, last):
            if data[j] == 0x2D:
                sizes[written], sizes[written + 1] = j - start, 1
                written += 2
                start = j + 1
        sizes[written] = last - start
        written += 1
        for _ in range(bracket + mark):
            sizes[written] = 1
            written += 1
        if _has_special(data, begin, sizes[first:written], special):
            written = first
        counts[k] = written - first
    return written


@kernel
def _has_special(data: Bytes, begin: int, sizes: Numbers, special: Keys) -> bool:
    """Is any run of a piece's tokens a special case? spaCy looks for them before, while and after it splits."""
    for a in range(len(sizes)):
        end = begin
        for b in range(a, len(sizes)):
            end += sizes[b]
            if _is_special(special, hash_bytes(data, begin, end)):
                return True
        begin += sizes[a]
    return False


@kernel
def _is_mark(byte: int) -> bool:
    return byte == 0x2E or byte == 0x2C or byte == 0x3B or byte == 0x3A or byte == 0x3F or byte == 0x21


@kernel
def _is_letter(byte: int) -> bool:
    return 65 <= byte <= 90 or 97 <= byte <= 122


@kernel
def _is_plain(data: Bytes, begin: int, end: int) -> bool:
    i = begin
    while i < end and 48 <= data[i] <= 57:
        i += 1
    if i > begin:
        return i == end
    while i < end and _is_letter(data[i]):
        i += 1
    if i == begin:
        return False
    if i < end and data[i] != 0x2D:
        while i < end and 48 <= data[i] <= 57:
            i += 1
        return i == end
    while i < end:
        if data[i] != 0x2D or i + 1 >= end or not _is_letter(data[i + 1]):
            return False
        i += 1
        while i < end and _is_letter(data[i]):
            i += 1
    return True


@kernel
def _is_special(special: Keys, h: np.uint64) -> bool:
    low, high = 0, len(special)
    while low < high:
        middle = (low + high) >> 1
        if special[middle] < h:
            low = middle + 1
        else:
            high = middle
    return low < len(special) and special[low] == h


@kernel
def _long_tokens(data: Bytes, begin: int, end: int, huge: bool, classes: Classes, sizes: Numbers, written: int) -> int:
    start, characters, kind = begin, 0, -1
    i = begin
    while i < end:
        code, size = code_point(data, i, end)
        now = 0
        if not huge:
            now = 1 if code < TABLE and classes[code] & SYMBOL else 0
        if characters and (now != kind or characters == LONG):
            sizes[written] = i - start
            written += 1
            start, characters = i, 0
        kind = now
        characters += 1
        i += size
    if i > start:
        sizes[written] = end - start
        written += 1
    return written


@kernel
def bytes_of_characters(data: Bytes, lengths: Numbers, sizes: Numbers) -> int:
    """Turns tokens' lengths in characters into bytes; they cover `data` from its beginning. Returns where they end."""
    i = 0
    for k in range(len(lengths)):
        begin = i
        for _ in range(lengths[k]):
            if i < len(data):
                i += 1
                while i < len(data) and (data[i] & 0xC0) == 0x80:
                    i += 1
        sizes[k] = i - begin
    return i


@kernel
def state_facts(
    data: Bytes, begins: Places, ends: Places, rows: Places, counts: Numbers, sizes: Numbers, classes: Classes,
    stop_words: Keys, facts: FactTable, tokens: Keys, token: int,
) -> int:  # fmt: skip
    """Writes the facts of pieces.

    Args:
        data, begins, ends: the pieces.
        rows: row of `facts` for each piece.
        counts, sizes: tokens of each piece, and bytes of each token, one after another.
        stop_words: FNV-1a hashes of up to 8 stop words.
        facts: int32[..., COLUMNS].
        tokens: uint64[..., 4], see HASH and the others.
        token: where the first token goes in these.

    Returns:
        Where the next token goes.
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
    """spaCy's sentencizer, a token on: `state` is twice the sentences begun, plus 1 if the last has ended."""
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
"""The words of C4's phrases that are looked for first, each with a space at its end."""


@kernel
def lower_at(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """The byte at data[i] in lower case, and how many it stood in: the Kelvin sign is a `k` to `str.lower`."""
    byte = int(data[i])
    if 65 <= byte <= 90:
        return byte + 32, 1
    if byte == 0xE2 and i + 2 < end and data[i + 1] == 0x84 and data[i + 2] == 0xAA:
        return 0x6B, 3
    return byte, 1


@kernel
def words_begin_at(data: Bytes, i: int, end: int, words: Bytes, first: int, last: int) -> bool:
    """Does words[first:last] (lower case) stand at data[i], whatever its case there?"""
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
