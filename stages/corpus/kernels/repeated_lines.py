"""Repeated lines and paragraphs: Gopher's first repetition rules (Rae et al. 2021), as datatrove implements them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import count_characters, strip_span
from stages.corpus.kernels.word_facts import BASE
from stages.corpus.kernels.word_split import SPREAD, Bytes, Keys, Numbers, Places

PARAGRAPHS, PARAGRAPH_CHARACTERS, LINES, LINE_CHARACTERS = range(1, 5)
"""Codes of the rules, in their order."""


class LineThresholds(NamedTuple):
    """Largest fraction that each rule allows; 0 turns a rule off, as in datatrove."""

    duplicate_paragraphs: float
    """Of paragraphs."""
    duplicate_paragraph_characters: float
    """Of characters."""
    duplicate_lines: float
    """Of lines."""
    duplicate_line_characters: float
    """Of characters."""


@kernel
def repeated_lines(
    data: Bytes, offsets: Places, characters: Places, thresholds: LineThresholds, alive: NDArray[np.bool_],
    codes: Numbers, values: NDArray[np.float64],
) -> None:  # fmt: skip
    """The first of four rules that each text breaks.

    Paragraphs are separated by two or more line feeds, in the text without white space at its ends; lines by one or
    more, empty ones at the text's ends included.

    Args:
        data, offsets: n texts.
        characters: of each text.
        alive: texts to check.
        codes, values: written for texts that break a rule: its code, and the measured value.
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
        inner, outer = strip_span(data, begin, end)
        # A repeated paragraph has repeated lines, unless white space at the text's ends makes them differ.
        if copies or inner > begin or outer < end:
            paragraphs, paragraph_copies, paragraph_repeated = _duplicates(data, inner, outer, True, table[:size])
            if thresholds.duplicate_paragraphs and paragraph_copies / paragraphs > thresholds.duplicate_paragraphs:
                codes[text], values[text] = PARAGRAPHS, paragraph_copies / paragraphs
                continue
            if (
                thresholds.duplicate_paragraph_characters
                and paragraph_repeated / characters[text] > thresholds.duplicate_paragraph_characters
            ):
                codes[text], values[text] = PARAGRAPH_CHARACTERS, paragraph_repeated / characters[text]
                continue
        if thresholds.duplicate_lines and copies / lines > thresholds.duplicate_lines:
            codes[text], values[text] = LINES, copies / lines
            continue
        if thresholds.duplicate_line_characters and repeated / characters[text] > thresholds.duplicate_line_characters:
            codes[text], values[text] = LINE_CHARACTERS, repeated / characters[text]


@kernel
def _duplicates(data: Bytes, begin: int, end: int, double: bool, table: Keys) -> tuple[int, int, int]:
    """Parts between runs of line feeds (of at least two, if `double`), those that repeat, and their characters.

    Args:
        table: scratch space for hashes; its size is a power of two and larger than the number of parts.
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
