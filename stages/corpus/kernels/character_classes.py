"""Properties of characters according to Python and spaCy, as bits for each code point."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

Classes = NDArray[np.uint8]

TABLE = 0x40000
"""Code points below this are looked up. None above it has a bit: planes 4 to 16 hold tags and private use."""

ALPHABETIC = 1
"""`str.isalpha`."""
SYMBOL = 2
"""In datatrove's PUNCTUATION_SET: tokens of nothing else do not count as words."""
PUNCTUATION = 4
"""Unicode category P: spaCy's `is_punct`, if all characters of a token are."""
SENTENCE_END = 8
"""A token that spaCy's sentencizer ends sentences with."""
DECIMAL = 16
r"""A digit for `\d`."""
TERMINAL = 32
"""In datatrove's TERMINAL_PUNCTUATION: FineWeb's lines end with it."""


@lru_cache(maxsize=1)
def character_classes() -> Classes:
    """Bits of each code point, uint8[TABLE]. Those above have none."""
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

    characters = [chr(code) for code in range(TABLE)]
    table = np.fromiter((character.isalpha() for character in characters), np.uint8, TABLE) * np.uint8(ALPHABETIC)
    category = unicodedata.category
    kinds = [category(character) for character in characters]
    table |= np.fromiter((kind[0] == "P" for kind in kinds), np.uint8, TABLE) * np.uint8(PUNCTUATION)
    table |= np.fromiter((kind == "Nd" for kind in kinds), np.uint8, TABLE) * np.uint8(DECIMAL)
    for bit, members in ((SYMBOL, PUNCTUATION_SET), (SENTENCE_END, SENTENCE_ENDS), (TERMINAL, TERMINAL_PUNCTUATION)):
        for character in members:
            table[ord(character)] |= bit
    return table


SENTENCE_ENDS = (
    "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？"
    "𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈｡。"
)
"""`Sentencizer.default_punct_chars` of spaCy 3.8, copied because importing spaCy takes most of a second."""


@kernel
def code_point(data: NDArray[np.uint8], i: int, end: int) -> tuple[int, int]:
    """The code point at data[i] and its length in bytes; U+FFFD of one byte where it is cut off by `end`."""
    first = int(data[i])
    if first < 0x80:
        return first, 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if i + size > end:
        return 0xFFFD, 1
    code = first & (0x7F >> size)
    for j in range(i + 1, i + size):
        code = (code << 6) | (int(data[j]) & 0x3F)
    return code, size


@kernel
def space_size(data: NDArray[np.uint8], i: int, end: int) -> int:
    """Bytes of the white space character (`str.isspace`) at data[i]; 0 if there is none."""
    first = data[i]
    if first <= 0x20:
        return 1 if first == 0x20 or 9 <= first <= 13 or 28 <= first <= 31 else 0
    if first < 0xC2:
        return 0
    if first == 0xC2:
        return 2 if i + 1 < end and (data[i + 1] == 0x85 or data[i + 1] == 0xA0) else 0
    if (first < 0xE1 or first > 0xE3) or i + 2 >= end:
        return 0
    second, third = data[i + 1], data[i + 2]
    if first == 0xE2:
        if second == 0x80:
            return 3 if third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF else 0
        return 3 if second == 0x81 and third == 0x9F else 0
    if first == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    return 3 if second == 0x80 and third == 0x80 else 0


@kernel
def strip_span(data: NDArray[np.uint8], begin: int, end: int) -> tuple[int, int]:
    """Begin and end of data[begin:end] without surrounding white space, as `str.strip`; (end, end) if it is empty."""
    while begin < end:
        size = space_size(data, begin, end)
        if not size:
            break
        begin += size
    while end > begin:
        start = end - 1
        while start > begin and (data[start] & 0xC0) == 0x80:
            start -= 1
        if not space_size(data, start, end):
            break
        end = start
    return begin, end


@kernel
def count_characters(data: NDArray[np.uint8], begin: int, end: int) -> int:
    """Code points of UTF-8."""
    count = 0
    part = data[begin:end]  # a slice: with indices from 0 on numba can vectorise the loop
    for i in range(len(part)):
        count += (part[i] & 0xC0) != 0x80
    return count


@kernel
def text_lengths(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Characters of each text, int64[n], and whether it is only white space, bool[n]."""
    n = len(offsets) - 1
    counts, blank = np.empty(n, np.int64), np.empty(n, np.bool_)
    for text in range(n):
        begin, end = offsets[text], offsets[text + 1]
        counts[text] = count_characters(data, begin, end)
        while begin < end:
            size = space_size(data, begin, end)
            if not size:
                break
            begin += size
        blank[text] = begin == end
    return counts, blank
