"""C4's rules (Raffel et al. 2020) as datatrove has them: lines that go, texts that go, and the text that is left."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import DECIMAL, TABLE, Classes, code_point, stripped
from stages.corpus.kernels.piece_facts import (
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
from stages.corpus.kernels.pieces import BREAK, GAP_OPEN, GAP_TOKEN, Bytes, Numbers, Places

LOREM_IPSUM, CURLY_BRACKET, FEW_SENTENCES = 1, 2, 3
"""Codes of the rules for texts."""

TERMINAL_PUNCTUATION, MINIMUM_WORDS, MAXIMUM_LENGTH, NO_JAVASCRIPT, NO_POLICY, NO_CITATIONS = range(6)
NO_LOREM_IPSUM, NO_CURLY = range(6, 8)
"""Settings: 0 or 1, or a number; a longest word of -1 turns that rule off."""

LONG_WORD, NO_END, FEW_WORDS, JAVASCRIPT, POLICY, CITATION, BLANK = range(7)
"""What is counted: lines that went, by rule; citations that went; and lines without a word that went."""

_TEXT = b"lorem ipsum|javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies|"
_PHRASES = np.frombuffer(_TEXT, np.uint8)
_BEGINS = np.flatnonzero(np.frombuffer(b"|" + _TEXT, np.uint8) == ord("|"))
_EDIT = np.frombuffer(b"edit]", np.uint8)
_NEEDED = np.frombuffer(b"citation needed]", np.uint8)


@kernel
def c4_lines(
    data: Bytes, firsts: Places, pieces: Numbers, starts: Places, gaps: Numbers, facts: FactTable, classes: Classes,
    settings: Places, alive: NDArray[np.bool_], codes: Numbers, sentences: Places, counts: Places, out: Bytes,
    seen: Bytes, places: Places, fresh_texts: Places, fresh_begins: Places, fresh_ends: Places,
) -> int:  # fmt: skip
    """Judges each line; writes the texts that are left.

    Args:
        data, firsts, pieces, starts, gaps, facts: see `walk_pieces` and `state_facts`.
        settings: int64[8], by the names above.
        alive: texts to look at.
        codes: written for texts that break a rule.
        sentences: written: sentences in the lines that stay, but for those counted later.
        counts: int64[n, 7], written: see LONG_WORD and the others.
        out, places: written: the lines that stay, joined; text i is `out[places[i, 0]:places[i, 1]]`. `out` is as long
            as `data`.
        seen: the bytes of `out`, as an array that is only read: kernels are compiled for these alone.
        fresh_texts, fresh_begins, fresh_ends: written: lines without their citations, whose sentences are to be
            counted: the text, and bytes in `out`. As long as there are `[` in data.

    Returns:
        How many fresh lines there are.
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
                if settings[TERMINAL_PUNCTUATION] or settings[MINIMUM_WORDS] > 0:
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
                row = facts[pieces[k]]
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
            if settings[MAXIMUM_LENGTH] != -1 and longest > settings[MAXIMUM_LENGTH]:
                counts[text, LONG_WORD] += 1
                continue
            line_begin = written + (1 if kept else 0)
            line_end = line_begin
            cited = 0
            if flags & SQUARE and not settings[NO_CITATIONS]:
                # One line break more than was in `data` cannot be written: a text's first line has none.
                if kept:
                    out[written] = 10
                line_end, cited = _without_citations(data, starts[first], stop, classes, out, line_begin)
            if settings[TERMINAL_PUNCTUATION]:
                if cited:
                    bad = not _ends_well(seen, line_begin, line_end)
                else:
                    bad = not last_flags & ENDS_MARK or last_flags & ENDS_DOTS != 0
                if bad:
                    counts[text, NO_END] += 1
                    continue
            if k - first < settings[MINIMUM_WORDS]:
                counts[text, FEW_WORDS] += 1
                continue
            phrases = 0
            if cited:
                phrases = _phrases(seen, line_begin, line_end)
            elif flags & PHRASE:
                phrases = _phrases(data, starts[first], stop)
            if phrases & 1 and not settings[NO_LOREM_IPSUM]:
                code = LOREM_IPSUM
                break
            if phrases & 2 and not settings[NO_JAVASCRIPT]:
                counts[text, JAVASCRIPT] += 1
                continue
            if flags & CURLY and not settings[NO_CURLY]:
                code = CURLY_BRACKET
                break
            if phrases & 4 and not settings[NO_POLICY]:
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
        places[text, 0], places[text, 1] = stripped(seen, origin, written)
    return fresh


@kernel
def sentences_of(firsts: Places, pieces: Numbers, gaps: Numbers, facts: FactTable, sentences: Places) -> None:
    """Sentences of each text as spaCy's sentencizer begins them, at least 1."""
    for text in range(len(firsts) - 1):
        triggers, state = 0, 0
        for k in range(firsts[text], firsts[text + 1] + 1):
            if gaps[k + text] & GAP_TOKEN and state:
                triggers += 1
                state = 0
            if k < firsts[text + 1]:
                row = facts[pieces[k]]
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
    r"""Copies a line without `[12]`, `[]`, `[edit]` and `[citation needed]`; where it ends, and how many there were."""
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
    """Which phrases stand in a line, in any case: 1 for lorem ipsum, 2 for javascript, 4 for those of policies."""
    found = 0
    for i in range(begin, end):
        byte, _ = lower_at(data, i, end)
        for number in range(len(_BEGINS) - 1):
            first = _BEGINS[number]
            if byte == _PHRASES[first] and words_begin_at(data, i, end, _PHRASES, first, _BEGINS[number + 1] - 1):
                found |= min(4, 1 << number)
    return found
