"""Tokens of words for which simple rules give the same result as spaCy."""

from __future__ import annotations

import numpy as np

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import SYMBOL, TABLE, Classes, code_point, count_characters
from stages.corpus.kernels.word_split import Bytes, Keys, Numbers, Places, hash_bytes

LONG = 1000
"""Words of at least so many characters are not given to spaCy, whose time grows with the square of their length. They
are split where a symbol (PUNCTUATION_SET) meets another character, and after every LONG characters."""
HUGE = 1_000_000
"""Words of at least so many characters are only cut after every LONG characters, so that memory stays small."""


@kernel
def plain_tokens(
    data: Bytes, begins: Places, ends: Places, special: Keys, classes: Classes, counts: Numbers, sizes: Numbers
) -> int:
    """Tokenizes the words that do not need spaCy: plain words with a few marks around them, and very long words.

    Plain words are, in ASCII, `(`? then letters, letters with hyphens between, digits, or letters and then digits; then
    `)`? and one of `.,;:?!`?. spaCy separates the marks and splits at hyphens, except before a full stop after a single
    capital letter, and unless some adjacent tokens are one of its special cases.

    Args:
        special: sorted hashes (`hash_bytes`) of spaCy's special cases.
        counts: written: tokens of each word; 0 if it needs spaCy.
        sizes: written: bytes of each token; must hold the bytes of all words.

    Returns:
        Number of tokens written.
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
    """Is any run of a word's tokens a special case? spaCy applies them before, during and after splitting."""
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
    """Converts tokens' lengths from characters to bytes; they cover `data` from its beginning. Returns their end."""
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
