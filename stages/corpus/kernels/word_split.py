"""Texts as ids of their words. A word is a run of characters between white space; spaCy splits it into tokens.

spaCy tokenizes each word on its own, and words repeat: 3.4 million in MedQuAD are 74 thousand different ones. So
everything that rules ask about a word is computed once (`word_facts`), and texts become arrays of word ids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.bytes_at_once import end_of_word, hash_of_bytes
from stages.corpus.kernels.character_classes import space_size

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Numbers = NDArray[np.int32]
Keys = NDArray[np.uint64]

OFFSET = 0xCBF29CE484222325
PRIME = 0x100000001B3
"""FNV-1a's, over bytes: for the few strings that are searched by name."""
SPREAD = 0x9E3779B97F4A7C15
"""Fibonacci hashing: the high bits of the product choose a table's slot."""

BREAK = 4
"""A gap counts its line breaks (`str.splitlines`: ten characters, CR LF is one) in steps of this."""
GAP_TOKEN = 1
"""Bit of a gap that is a token of its own in spaCy: all but a single space."""
GAP_OPEN = 2
"""Bit of a gap with white space after its last line break."""

TEXT, BYTE, WORDS, NEW, KNOWN = 0, 1, 2, 3, 4
"""State of a split: text, byte (-1: at the text's beginning), words written, new words reported, words known."""


@kernel
def hash_bytes(data: Bytes, begin: int, end: int) -> np.uint64:
    """FNV-1a of data[begin:end]."""
    h = np.uint64(OFFSET)
    for i in range(begin, end):
        h = (h ^ np.uint64(data[i])) * np.uint64(PRIME)
    return h


@kernel
def split_words(
    data: Bytes, begins: Places, ends: Places, table: Keys, most: int, state: Places,
    firsts: Places, word_ids: Numbers, starts: Places, gaps: Numbers, new_starts: Places, new_ends: Places,
) -> bool:  # fmt: skip
    """Continues splitting texts at white space; stops early when the buffers for new words are full.

    Args:
        data, begins, ends: text i is `data[begins[i]:ends[i]]`.
        table: uint64[m, 2], m a power of two: open-addressing table from the hash of a word to its id plus 1; 0 means
            an empty slot. New words are inserted.
        most: maximum number of words in the table.
        state: int64[5], see TEXT and the others; read and written.
        firsts: int64[n + 1], written: words of text i are `word_ids[firsts[i]:firsts[i + 1]]`.
        word_ids, starts: written: id and first byte of each word.
        gaps: written: white space before each word and at the end of each text: text i has
            `gaps[firsts[i] + i:firsts[i + 1] + i + 1]`. See BREAK, GAP_TOKEN, GAP_OPEN.
        new_starts, new_ends: written: bytes of the new words, numbered from state[KNOWN] on.

    Returns:
        True if all texts are split.
    """
    mask = len(table) - 1
    shift = slot_shift(len(table))
    text, position = state[TEXT], state[BYTE]
    count, new, known = state[WORDS], state[NEW], state[KNOWN]
    while text < len(begins):
        begin, end = begins[text], ends[text]
        if position < 0:
            position = begin
            firsts[text] = count
        i = position
        while True:
            gap_begin = i
            breaks, open_, token = 0, 0, 0
            if i < end and data[i] == 0x20 and i > begin and not (i + 1 < end and space_size(data, i + 1, end)):
                i += 1  # a single space, by far the most common gap
            else:
                while i < end:
                    size = space_size(data, i, end)
                    if not size:
                        break
                    first = data[i]
                    broke = (10 <= first <= 13 and size == 1) or 28 <= first <= 30
                    if size == 2:
                        broke = data[i + 1] == 0x85
                    elif size == 3:
                        broke = first == 0xE2 and data[i + 1] == 0x80 and (data[i + 2] == 0xA8 or data[i + 2] == 0xA9)
                    if broke:
                        if not (first == 10 and i > gap_begin and data[i - 1] == 13):
                            breaks += 1
                        open_ = 0
                    else:
                        open_ = GAP_OPEN
                    i += size
                if i > gap_begin and not (i == gap_begin + 1 and data[gap_begin] == 0x20 and gap_begin > begin):
                    token = GAP_TOKEN
            gaps[count + text] = breaks * BREAK | open_ | token
            if i >= end:
                break
            start = i
            i = end_of_word(data, start, end)
            h = hash_of_bytes(data, start, i)
            slot = np.int64((h * np.uint64(SPREAD)) >> shift)
            while table[slot, 1] and table[slot, 0] != h:
                slot = (slot + 1) & mask
            number = np.int32(table[slot, 1]) - 1
            if number < 0:
                if known + new >= most or new >= len(new_starts):
                    state[TEXT], state[BYTE] = text, gap_begin
                    state[WORDS], state[NEW] = count, new
                    return False
                number = known + new
                table[slot, 0], table[slot, 1] = h, number + 1
                new_starts[new], new_ends[new] = start, i
                new += 1
            word_ids[count] = number
            starts[count] = start
            count += 1
        text += 1
        position = -1
        firsts[text] = count
    state[TEXT], state[BYTE] = text, -1
    state[WORDS], state[NEW] = count, new
    return True


@kernel
def copy_table(table: Keys, larger: Keys) -> None:
    """Copies a table's words into a larger, empty one."""
    mask = len(larger) - 1
    shift = slot_shift(len(larger))
    for i in range(len(table)):
        if not table[i, 1]:
            continue
        slot = np.int64((table[i, 0] * np.uint64(SPREAD)) >> shift)
        while larger[slot, 1]:
            slot = (slot + 1) & mask
        larger[slot, 0], larger[slot, 1] = table[i, 0], table[i, 1]


@kernel
def slot_shift(slots: int) -> np.uint64:
    """How far to shift a 64-bit hash right to get a slot number; `slots` is a power of two."""
    shift = np.uint64(64)
    while slots > 1:
        slots >>= 1
        shift -= np.uint64(1)
    return shift
