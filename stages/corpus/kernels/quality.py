"""Gopher's quality rules (Rae et al. 2021, appendix A) as datatrove has them, over pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.piece_facts import (
    ALPHABETIC_TOKENS,
    BULLET,
    ELLIPSES,
    ENDS_ELLIPSIS,
    FLAGS,
    HASHES,
    PLAIN,
    PLAIN_CHARACTERS,
    STOP_WORD,
    TOKENS,
    FactTable,
)
from stages.corpus.kernels.pieces import BREAK, GAP_OPEN, Numbers, Places

SHORT, LONG, SHORT_WORDS, LONG_WORDS, HASH_SIGNS, DOTS, BULLETS, LINE_DOTS, LETTERS, STOP_WORDS = range(1, 11)
"""Codes of the rules, in their order."""


@kernel
def quality(
    firsts: Places, pieces: Numbers, gaps: Numbers, facts: FactTable, limits: NDArray[np.float64],
    alive: NDArray[np.bool_], codes: Numbers, values: NDArray[np.float64],
) -> None:  # fmt: skip
    """The first rule that each text breaks.

    Args:
        firsts, pieces, gaps: see `walk_pieces`.
        limits: limit of each rule, by its code less 1; a limit of 0 turns a rule off, as in datatrove.
        alive: texts to look at.
        codes, values: written for texts that break a rule: which, and what was measured.
    """
    for text in range(len(firsts) - 1):
        if not alive[text]:
            continue
        begin, end = firsts[text], firsts[text + 1]
        tokens, plain, characters, letters, hashes, dots, seen = 0, 0, 0, 0, 0, 0, 0
        for k in range(begin, end):
            row = facts[pieces[k]]
            tokens += row[TOKENS]
            plain += row[PLAIN]
            characters += row[PLAIN_CHARACTERS]
            letters += row[ALPHABETIC_TOKENS]
            hashes += row[HASHES]
            dots += row[ELLIPSES]
            seen |= row[FLAGS]
        if not tokens:
            continue
        if limits[0] and plain < limits[0]:
            codes[text], values[text] = SHORT, plain
            continue
        if limits[1] and plain > limits[1]:
            codes[text], values[text] = LONG, plain
            continue
        if plain:  # the mean of no words is no number, which no limit forbids
            mean = characters / plain
            if limits[2] and mean < limits[2]:
                codes[text], values[text] = SHORT_WORDS, mean
                continue
            if limits[3] and mean > limits[3]:
                codes[text], values[text] = LONG_WORDS, mean
                continue
        if limits[4] and hashes / tokens > limits[4]:
            codes[text], values[text] = HASH_SIGNS, hashes / tokens
            continue
        if limits[5] and dots / tokens > limits[5]:
            codes[text], values[text] = DOTS, dots / tokens
            continue
        if seen & (BULLET | ENDS_ELLIPSIS) and (limits[6] or limits[7]):
            lines, bullets, endings = _line_edges(begin, end, text, pieces, gaps, facts)
            if limits[6] and bullets / lines > limits[6]:
                codes[text], values[text] = BULLETS, bullets / lines
                continue
            if limits[7] and endings / lines > limits[7]:
                codes[text], values[text] = LINE_DOTS, endings / lines
                continue
        if limits[8] and letters / tokens < limits[8]:
            codes[text], values[text] = LETTERS, letters / tokens
            continue
        words = 0
        for number in range(8):
            words += (seen & (STOP_WORD << number)) != 0
        if limits[9] and words < limits[9]:
            codes[text], values[text] = STOP_WORDS, words


@kernel
def _line_edges(
    begin: int, end: int, text: int, pieces: Numbers, gaps: Numbers, facts: FactTable
) -> tuple[int, int, int]:
    """Lines of a text, those that begin with a bullet, and those that end with an ellipsis, white space apart."""
    lines, bullets, endings = 0, 0, 0
    new_line = True
    for k in range(begin, end + 1):
        breaks = gaps[k + text] // BREAK
        lines += breaks
        if breaks or k == end:
            if k > begin and facts[pieces[k - 1], FLAGS] & ENDS_ELLIPSIS:
                endings += 1
            new_line = True
        if k < end and new_line:
            bullets += (facts[pieces[k], FLAGS] & BULLET) != 0
            new_line = False
    last = gaps[end + text]
    if last < BREAK or last & GAP_OPEN:
        lines += 1
    return lines, bullets, endings
