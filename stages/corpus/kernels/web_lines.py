"""FineWeb's own quality rules (Penedo et al. 2024) as datatrove implements them, over bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import TABLE, TERMINAL, Classes, code_point, count_characters, strip_span
from stages.corpus.kernels.word_facts import BASE, TOKENS, FactTable
from stages.corpus.kernels.word_split import SPREAD, Bytes, Numbers, Places

NO_LINES, PUNCTUATED, SHORT_LINES, DUPLICATES, BREAKS = range(1, 6)
"""Codes of the rules, in their order."""


class WebLineThresholds(NamedTuple):
    """Thresholds of the rules; texts without lines are removed by a rule without one."""

    minimum_punctuated_lines: float
    """Fraction of lines."""
    maximum_short_lines: float
    """Fraction of lines."""
    maximum_duplicate_characters: float
    """Fraction of characters."""
    maximum_line_breaks: float
    """Line breaks per token."""


@kernel
def web_lines(
    data: Bytes, offsets: Places, firsts: Places, word_ids: Numbers, facts: FactTable, classes: Classes, short: int,
    thresholds: WebLineThresholds, alive: NDArray[np.bool_], codes: Numbers, values: NDArray[np.float64],
) -> None:  # fmt: skip
    """The first rule that each text breaks. Lines are separated by line feeds; blank ones are ignored.

    Args:
        data, offsets: n texts.
        firsts, word_ids, facts: see `split_words` and `write_facts`.
        short: characters up to which a line is short.
        alive: texts to check.
        codes, values: written for texts that break a rule: its code, and the measured value.
    """
    base = np.uint64(BASE)
    for text in range(len(offsets) - 1):
        begin, end = offsets[text], offsets[text + 1]
        if not alive[text]:
            continue
        feeds = 0
        for i in range(begin, end):
            feeds += data[i] == 10
        size, shift = 64, np.uint64(58)
        while size < 2 * (feeds + 1):
            size *= 2
            shift -= np.uint64(1)
        table = np.zeros(size, np.uint64)
        lines, punctuated, shorts, repeated = 0, 0, 0, 0
        start = begin
        while start <= end:
            stop = start
            h = np.uint64(1)
            while stop < end and data[stop] != 10:
                h = h * base + np.uint64(data[stop])
                stop += 1
            inner, outer = strip_span(data, start, stop)
            if inner < outer:
                lines += 1
                characters = count_characters(data, start, stop)
                shorts += characters <= short
                last = stop - 1
                while last > start and (data[last] & 0xC0) == 0x80:
                    last -= 1
                code, _ = code_point(data, last, stop)
                punctuated += code < TABLE and classes[code] & TERMINAL != 0
                h = (h ^ (h >> np.uint64(32))) * np.uint64(SPREAD)
                if not h:
                    h = np.uint64(1)
                slot = np.int64(h >> shift)
                while table[slot] and table[slot] != h:
                    slot = (slot + 1) & (size - 1)
                if table[slot]:
                    repeated += characters
                table[slot] = h
            start = stop + 1
        if not lines:
            codes[text] = NO_LINES
            continue
        if punctuated / lines < thresholds.minimum_punctuated_lines:
            codes[text], values[text] = PUNCTUATED, punctuated / lines
            continue
        if shorts / lines > thresholds.maximum_short_lines:
            codes[text], values[text] = SHORT_LINES, shorts / lines
            continue
        share = repeated / (count_characters(data, begin, end) - feeds)
        if share > thresholds.maximum_duplicate_characters:
            codes[text], values[text] = DUPLICATES, share
            continue
        tokens = 0
        for k in range(firsts[text], firsts[text + 1]):
            tokens += facts[word_ids[k], TOKENS]
        if feeds / tokens > thresholds.maximum_line_breaks:
            codes[text], values[text] = BREAKS, feeds / tokens
