"""Gopher's quality rules (Rae et al. 2021, appendix A) as datatrove has them, over words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.word_facts import (
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
from stages.corpus.kernels.word_split import BREAK, GAP_OPEN, Numbers, Places

SHORT, LONG, SHORT_WORDS, LONG_WORDS, HASH_SIGNS, DOTS, BULLETS, LINE_DOTS, LETTERS, STOP_WORDS = range(1, 11)
"""Codes of the rules, in their order."""


class QualityThresholds(NamedTuple):
    """Threshold of each rule; 0 turns a rule off, as in datatrove."""

    minimum_words: float
    maximum_words: float
    minimum_mean_word_length: float
    """Characters."""
    maximum_mean_word_length: float
    """Characters."""
    maximum_hash_sign_ratio: float
    """`#` per token."""
    maximum_ellipsis_ratio: float
    """Ellipses per token."""
    maximum_bullet_lines: float
    """Fraction of lines."""
    maximum_ellipsis_lines: float
    """Fraction of lines."""
    minimum_alphabetic_words: float
    """Fraction of tokens."""
    minimum_stop_words: float


@kernel
def quality(
    firsts: Places, word_ids: Numbers, gaps: Numbers, facts: FactTable, thresholds: QualityThresholds,
    alive: NDArray[np.bool_], codes: Numbers, values: NDArray[np.float64],
) -> None:  # fmt: skip
    """The first rule that each text breaks.

    Args:
        firsts, word_ids, gaps: see `split_words`.
        alive: texts to check.
        codes, values: written for texts that break a rule: its code, and the measured value.
    """
    for text in range(len(firsts) - 1):
        if not alive[text]:
            continue
        begin, end = firsts[text], firsts[text + 1]
        tokens, plain, characters, letters, hashes, dots, seen = 0, 0, 0, 0, 0, 0, 0
        for k in range(begin, end):
            row = facts[word_ids[k]]
            tokens += row[TOKENS]
            plain += row[PLAIN]
            characters += row[PLAIN_CHARACTERS]
            letters += row[ALPHABETIC_TOKENS]
            hashes += row[HASHES]
            dots += row[ELLIPSES]
            seen |= row[FLAGS]
        if not tokens:
            continue
        if thresholds.minimum_words and plain < thresholds.minimum_words:
            codes[text], values[text] = SHORT, plain
            continue
        if thresholds.maximum_words and plain > thresholds.maximum_words:
            codes[text], values[text] = LONG, plain
            continue
        if plain:  # without words there is no mean, and no threshold applies
            mean = characters / plain
            if thresholds.minimum_mean_word_length and mean < thresholds.minimum_mean_word_length:
                codes[text], values[text] = SHORT_WORDS, mean
                continue
            if thresholds.maximum_mean_word_length and mean > thresholds.maximum_mean_word_length:
                codes[text], values[text] = LONG_WORDS, mean
                continue
        if thresholds.maximum_hash_sign_ratio and hashes / tokens > thresholds.maximum_hash_sign_ratio:
            codes[text], values[text] = HASH_SIGNS, hashes / tokens
            continue
        if thresholds.maximum_ellipsis_ratio and dots / tokens > thresholds.maximum_ellipsis_ratio:
            codes[text], values[text] = DOTS, dots / tokens
            continue
        if seen & (BULLET | ENDS_ELLIPSIS) and (thresholds.maximum_bullet_lines or thresholds.maximum_ellipsis_lines):
            lines, bullets, endings = _line_edges(begin, end, text, word_ids, gaps, facts)
            if thresholds.maximum_bullet_lines and bullets / lines > thresholds.maximum_bullet_lines:
                codes[text], values[text] = BULLETS, bullets / lines
                continue
            if thresholds.maximum_ellipsis_lines and endings / lines > thresholds.maximum_ellipsis_lines:
                codes[text], values[text] = LINE_DOTS, endings / lines
                continue
        if thresholds.minimum_alphabetic_words and letters / tokens < thresholds.minimum_alphabetic_words:
            codes[text], values[text] = LETTERS, letters / tokens
            continue
        stop_words = 0
        for number in range(8):
            stop_words += (seen & (STOP_WORD << number)) != 0
        if thresholds.minimum_stop_words and stop_words < thresholds.minimum_stop_words:
            codes[text], values[text] = STOP_WORDS, stop_words


@kernel
def _line_edges(
    begin: int, end: int, text: int, word_ids: Numbers, gaps: Numbers, facts: FactTable
) -> tuple[int, int, int]:
    """Lines of a text, those that begin with a bullet, and those that end with an ellipsis, ignoring white space."""
    lines, bullets, endings = 0, 0, 0
    new_line = True
    for k in range(begin, end + 1):
        breaks = gaps[k + text] // BREAK
        lines += breaks
        if breaks or k == end:
            if k > begin and facts[word_ids[k - 1], FLAGS] & ENDS_ELLIPSIS:
                endings += 1
            new_line = True
        if k < end and new_line:
            bullets += (facts[word_ids[k], FLAGS] & BULLET) != 0
            new_line = False
    last = gaps[end + text]
    if last < BREAK or last & GAP_OPEN:
        lines += 1
    return lines, bullets, endings
