"""Lines and paragraphs that repeat: Gopher's first repetition rules (Rae et al. 2021), as datatrove has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import count_characters, stripped
from stages.corpus.kernels.piece_facts import BASE
from stages.corpus.kernels.pieces import SPREAD, Bytes, Keys, Numbers, Places

PARAGRAPHS, PARAGRAPH_CHARACTERS, LINES, LINE_CHARACTERS = range(1, 5)
"""Codes of the rules, in their order."""


@kernel
def repeated_lines(
    data: Bytes, offsets: Places, characters: Places, limits: NDArray[np.float64], alive: NDArray[np.bool_],
    codes: Numbers, values: NDArray[np.float64],
) -> None:  # fmt: skip
    """The first of four rules that each text breaks.

    Paragraphs are what stands between two or more line feeds, in the text without white space around it; lines what
    stands between one or more, empty ones at the text's ends included.

    Args:
        data, offsets: n texts.
        characters: of each text.
        limits: limit of each rule, by its code less 1; 0 turns a rule off, as in datatrove.
        alive: texts to look at.
        codes, values: written for texts that break a rule: which, and what was measured.
    """
    table = np.empty(64, np.uint64)
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        if not alive[text] or begin == end:
            continue
        feeds = 0
        for i in range(begin, end):
            feeds += data[i] == 10
        if not feeds:
            continue
        size = 64
        while size < 2 * (feeds + 1):
            size *= 2
        if len(table) < size:
            table = np.empty(size, np.uint64)
        lines, copies, repeated = _duplicates(data, begin, end, False, table[:size])
        inner, outer = stripped(data, begin, end)
        # A paragraph that stands twice has lines that do, unless white space at the text's ends was in the way.
        if copies or inner > begin or outer < end:
            paragraphs, paragraph_copies, paragraph_repeated = _duplicates(data, inner, outer, True, table[:size])
            if limits[0] and paragraph_copies / paragraphs > limits[0]:
                codes[text], values[text] = PARAGRAPHS, paragraph_copies / paragraphs
                continue
            if limits[1] and paragraph_repeated / characters[text] > limits[1]:
                codes[text], values[text] = PARAGRAPH_CHARACTERS, paragraph_repeated / characters[text]
                continue
        if limits[2] and copies / lines > limits[2]:
            codes[text], values[text] = LINES, copies / lines
            continue
        if limits[3] and repeated / characters[text] > limits[3]:
            codes[text], values[text] = LINE_CHARACTERS, repeated / characters[text]


@kernel
def _duplicates(data: Bytes, begin: int, end: int, double: bool, table: Keys) -> tuple[int, int, int]:
    """Parts between runs of line feeds (of at least two, if `double`), those that repeat, and their characters.

    Args:
        table: room for hashes, a power of two that is more than the parts.
    """
    table[:] = 0
    shift = np.uint64(64)
    while (1 << (64 - np.int64(shift))) < len(table):
        shift -= np.uint64(1)
    parts, copies, characters = 0, 0, 0
    base = np.uint64(BASE)
    start = begin
    while True:
        stop, after = end, end + 1
        h = np.uint64(1)
        i = start
        while i < end:
            byte = data[i]
            if byte == 10:
                run = i + 1
                while run < end and data[run] == 10:
                    run += 1
                if run - i > double:
                    stop, after = i, run
                    break
            h = h * base + np.uint64(byte)
            i += 1
        parts += 1
        h = (h ^ (h >> np.uint64(32))) * np.uint64(SPREAD)
        if not h:
            h = np.uint64(1)
        slot = np.int64(h >> shift)
        while table[slot] and table[slot] != h:
            slot = (slot + 1) & (len(table) - 1)
        if table[slot]:
            copies += 1
            characters += count_characters(data, start, stop)
        else:
            table[slot] = h
        if after > end:
            return parts, copies, characters
        start = after
