"""C4's rules (Raffel et al. 2020) as datatrove implements them: which lines and texts are removed, and what remains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import DECIMAL, TABLE, Classes, code_point, strip_span
from stages.corpus.kernels.word_facts import (
    CHARACTERS,
    CURLY,
    ENDED,
    ENDS_DOTS,
    ENDS_MARK,
    FLAGS,
    FRESH,
    PHRASE,
    SIZE,
    SQUARE,
    FactTable,
    lower_at,
    words_begin_at,
)
from stages.corpus.kernels.word_split import BREAK, GAP_OPEN, GAP_TOKEN, Bytes, Numbers, Places

LOREM_IPSUM, CURLY_BRACKET, FEW_SENTENCES = 1, 2, 3
"""Codes of the rules for texts."""


class C4Settings(NamedTuple):
    """Which rules apply, see `C4Config`; a `maximum_word_length` of -1 turns that rule off."""

    terminal_punctuation: bool
    minimum_words_per_line: int
    maximum_word_length: int
    javascript_lines: bool
    policy_lines: bool
    citations: bool
    lorem_ipsum: bool
    curly_bracket: bool


LONG_WORD, NO_END, FEW_WORDS, JAVASCRIPT, POLICY, CITATION, BLANK = range(7)
"""Columns of counts: removed lines by rule, removed citations, removed blank lines."""

_TEXT = b"lorem ipsum|javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies|"
_PHRASES = np.frombuffer(_TEXT, np.uint8)
_BEGINS = np.flatnonzero(np.frombuffer(b"|" + _TEXT, np.uint8) == ord("|"))
_EDIT = np.frombuffer(b"edit]", np.uint8)
_NEEDED = np.frombuffer(b"citation needed]", np.uint8)


@kernel
def c4_lines(
    data: Bytes, firsts: Places, word_ids: Numbers, starts: Places, gaps: Numbers, facts: FactTable, classes: Classes,
    settings: C4Settings, alive: NDArray[np.bool_], codes: Numbers, sentences: Places, counts: Places, out: Bytes,
    seen: Bytes, places: Places, fresh_texts: Places, fresh_begins: Places, fresh_ends: Places,
) -> int:  # fmt: skip
    """Checks each line; writes the texts that remain.

    Args:
        data, firsts, word_ids, starts, gaps, facts: see `split_words` and `write_facts`.
        alive: texts to check.
        codes: written for texts that break a rule.
        sentences: written: sentences in the kept lines, except those that are counted later.
        counts: int64[n, 7], written: see LONG_WORD and the others.
        out, places: written: the kept lines, joined; text i is `out[places[i, 0]:places[i, 1]]`. `out` is as long
            as `data`.
        seen: the bytes of `out` as a read-only array, since helper kernels are compiled for read-only arrays.
        fresh_texts, fresh_begins, fresh_ends: written: rewritten lines (without their citations) whose sentences are
            still to be counted: the text, and bytes in `out`. As long as `data` has `[`.

    Returns:
        Number of rewritten lines.
    """
    written, fresh = 0, 0
    for text in range(len(firsts) - 1):
        places[text, 0], places[text, 1] = written, written
        if not alive[text]:
            continue
        begin, end = firsts[text], firsts[text + 1]
        origin, kept, fresh_origin = written, 0, fresh
        k = begin
        blank = gaps[begin + text] // BREAK
        code = 0
        while True:
            # Blank lines before the next line with words, or at the end of the text.
            if k == end:
                breaks = gaps[end + text] // BREAK
                if begin < end:
                    blank = max(0, breaks - 1)
                if breaks and gaps[end + text] & GAP_OPEN:
                    blank += 1
            if blank:
                if settings.terminal_punctuation or settings.minimum_words_per_line > 0:
                    counts[text, BLANK] += blank
                else:
                    for _ in range(blank):
                        if kept:
                            out[written] = 10
                            written += 1
                        kept += 1
                    sentences[text] += blank
            if k == end:
                break
            first, flags, longest, triggers, state = k, 0, 0, 0, 0
            while True:
                row = facts[word_ids[k]]
                flags |= row[FLAGS]
                longest = max(longest, row[CHARACTERS])
                step = row[ENDED] if state else row[FRESH]
                triggers += step >> 1
                state = step & 1
                last_flags = row[FLAGS]
                stop = starts[k] + row[SIZE]
                k += 1
                gap = gaps[k + text]
                if k == end or gap >= BREAK:
                    break
                if gap & GAP_TOKEN and state:
                    triggers += 1
                    state = 0
            blank = max(0, gap // BREAK - 1)
            if settings.maximum_word_length != -1 and longest > settings.maximum_word_length:
                counts[text, LONG_WORD] += 1
                continue
            line_begin = written + (1 if kept else 0)
            line_end = line_begin
            cited = 0
            if flags & SQUARE and settings.citations:
                # `out` never needs more line breaks than `data` has: none is written before a text's first line.
                if kept:
                    out[written] = 10
                line_end, cited = _without_citations(data, starts[first], stop, classes, out, line_begin)
            if settings.terminal_punctuation:
                if cited:
                    bad = not _ends_well(seen, line_begin, line_end)
                else:
                    bad = not last_flags & ENDS_MARK or last_flags & ENDS_DOTS != 0
                if bad:
                    counts[text, NO_END] += 1
                    continue
            if k - first < settings.minimum_words_per_line:
                counts[text, FEW_WORDS] += 1
                continue
            phrases = 0
            if cited:
                phrases = _phrases(seen, line_begin, line_end)
            elif flags & PHRASE:
                phrases = _phrases(data, starts[first], stop)
            if phrases & 1 and settings.lorem_ipsum:
                code = LOREM_IPSUM
                break
            if phrases & 2 and settings.javascript_lines:
                counts[text, JAVASCRIPT] += 1
                continue
            if flags & CURLY and settings.curly_bracket:
                code = CURLY_BRACKET
                break
            if phrases & 4 and settings.policy_lines:
                counts[text, POLICY] += 1
                continue
            if kept:
                out[written] = 10
            kept += 1
            if cited:
                counts[text, CITATION] += cited
                fresh_texts[fresh], fresh_begins[fresh], fresh_ends[fresh] = text, line_begin, line_end
                fresh += 1
                written = line_end
            else:
                sentences[text] += 1 + triggers
                written = line_begin + stop - starts[first]
                source, target = data[starts[first] : stop], out[line_begin:written]
                for i in range(len(source)):
                    target[i] = source[i]
        if code:
            codes[text] = code
            written, fresh = origin, fresh_origin
            continue
        places[text, 0], places[text, 1] = strip_span(seen, origin, written)
    return fresh


@kernel
def sentences_of(firsts: Places, word_ids: Numbers, gaps: Numbers, facts: FactTable, sentences: Places) -> None:
    """Number of sentences of each text by the rules of spaCy's sentencizer, at least 1."""
    for text in range(len(firsts) - 1):
        triggers, state = 0, 0
        for k in range(firsts[text], firsts[text + 1] + 1):
            if gaps[k + text] & GAP_TOKEN and state:
                triggers += 1
                state = 0
            if k < firsts[text + 1]:
                row = facts[word_ids[k]]
                step = row[ENDED] if state else row[FRESH]
                triggers += step >> 1
                state = step & 1
        sentences[text] = 1 + triggers


@kernel
def _ends_well(data: Bytes, begin: int, end: int) -> bool:
    if begin >= end:
        return False
    last = data[end - 1]
    if last == 0x2E:
        return not (end - begin >= 3 and data[end - 2] == 0x2E and data[end - 3] == 0x2E)
    return last == 0x3F or last == 0x21 or last == 0x22 or last == 0x27


@kernel
def _without_citations(data: Bytes, begin: int, end: int, classes: Classes, out: Bytes, place: int) -> tuple[int, int]:
    r"""Copies a line without `[12]`, `[]`, `[edit]` and `[citation needed]`; returns its end and the number removed."""
    cited = 0
    i = begin
    while i < end:
        if data[i] == 0x5B:
            j = i + 1
            if j + len(_EDIT) <= end and _same(data, j, _EDIT):
                i = j + len(_EDIT)
                cited += 1
                continue
            if j + len(_NEEDED) <= end and _same(data, j, _NEEDED):
                i = j + len(_NEEDED)
                cited += 1
                continue
            while j < end:
                code, size = code_point(data, j, end)
                if code >= TABLE or not classes[code] & DECIMAL:
                    break
                j += size
            if j < end and data[j] == 0x5D:
                i = j + 1
                cited += 1
                continue
        out[place] = data[i]
        place += 1
        i += 1
    return place, cited


@kernel
def _same(data: Bytes, i: int, words: Bytes) -> bool:
    different = 0
    for j in range(len(words)):
        different += data[i + j] != words[j]
    return different == 0


@kernel
def _phrases(data: Bytes, begin: int, end: int) -> int:
    """Which phrases occur in a line, ignoring case, as bits: 1 lorem ipsum, 2 javascript, 4 policies."""
    found = 0
    for i in range(begin, end):
        byte, _ = lower_at(data, i, end)
        for number in range(len(_BEGINS) - 1):
            first = _BEGINS[number]
            if byte == _PHRASES[first] and words_begin_at(data, i, end, _PHRASES, first, _BEGINS[number + 1] - 1):
                found |= min(4, 1 << number)
    return found
