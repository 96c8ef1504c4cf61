"""Hashes of the lines and paragraphs of texts, and texts without those that are boilerplate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.characters import CODE_POINTS, decode
from stages.corpus.kernels.word_hashes import mix64

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

LINE = 0x243F6A8885A308D3
PARAGRAPH = 0x13198A2E03707344
"""Initial states of the hashes, so that a line and a paragraph of the same words differ."""
_PRIME = 0x9E3779B97F4A7C15
_WORD_ENDS = 1 << 63
_CODE_POINT = 1 << 62


@kernel
def _absorb(state: np.uint64, value: np.uint64) -> np.uint64:
    state = (state ^ value) * np.uint64(_PRIME)
    return state ^ (state >> np.uint64(32))


@kernel
def _is_white(code: int) -> bool:
    """Is a code point beyond ASCII white space, as `str.isspace` says?"""
    return (
        code == 0x85
        or code == 0xA0
        or code == 0x1680
        or (0x2000 <= code <= 0x200A)
        or code == 0x2028
        or code == 0x2029
        or code == 0x202F
        or code == 0x205F
        or code == 0x3000
    )


@kernel
def _line(
    data: NDArray[np.uint8], at: int, end: int, paragraph: np.uint64, lower: NDArray[np.uint32]
) -> tuple[int, np.uint64, np.uint64, int, int]:
    """Hashes the line at `at`, and continues the hash of its paragraph; both are over words only, in lower case.

    A word is absorbed seven ASCII characters at a time (with a 1 before them, so that zeros count), other code points
    one at a time; its last value is marked. So two lines have equal hashes only if their words are equal.

    Returns:
        End of the line, states of the line's and the paragraph's hash, number of characters that are not white space,
        number of words.
    """
    line = np.uint64(LINE)
    characters, words, filled, inside = 0, 0, 0, False
    value, eight = np.uint64(1), np.uint64(8)
    while at < end:
        byte = data[at]
        if 0x20 < byte < 0x80:
            if filled == 7:
                line, paragraph = _absorb(line, value), _absorb(paragraph, value)
                value, filled = np.uint64(1), 0
            folded = np.uint64(byte) + np.uint64(0x20 if 0x41 <= byte <= 0x5A else 0)
            value = (value << eight) | folded
            filled += 1
            characters += 1
            inside = True
            at += 1
            continue
        if byte == 0x0A:
            break
        if byte < 0x80:
            code, size = int(byte), 1
            white = byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F
        else:
            wide, size = decode(data, at, end)
            code = int(wide)
            white = _is_white(code)
        at += size
        if not white:
            if filled:
                line, paragraph = _absorb(line, value), _absorb(paragraph, value)
                value, filled = np.uint64(1), 0
            if code < CODE_POINTS and lower[code] >= 0x80:  # `İ` and the Kelvin sign stay: ASCII is handled above
                code = int(lower[code])
            one = np.uint64(code) | np.uint64(_CODE_POINT)
            line, paragraph = _absorb(line, one), _absorb(paragraph, one)
            characters += 1
            inside = True
        elif inside:
            value |= np.uint64(_WORD_ENDS)
            line, paragraph = _absorb(line, value), _absorb(paragraph, value)
            value, filled, inside = np.uint64(1), 0, False
            words += 1
    if inside:
        value |= np.uint64(_WORD_ENDS)
        line, paragraph = _absorb(line, value), _absorb(paragraph, value)
        words += 1
    return at, line, paragraph, characters, words


@kernel
def _block(state: np.uint64, characters: int, words: int, least: int) -> np.uint64:
    """The hash of a line or paragraph, never 0; 0 if it has fewer than `least` characters, one space between words."""
    if words == 0 or characters + words - 1 < least:
        return np.uint64(0)
    return max(mix64(state), np.uint64(1))


@kernel
def block_hashes(
    data: NDArray[np.uint8],
    offsets: Places,
    depth: int,
    least_line: int,
    least_paragraph: int,
    lower: NDArray[np.uint32],
) -> tuple[Hashes, Places]:
    """Hashes of the lines at the edges of each text and of its paragraphs, each once for each text, sorted.

    Args:
        data, offsets: n texts, see `Texts`.
        depth: how many lines that are not blank are checked from the beginning and from the end.
        least_line, least_paragraph: characters (runs of white space as one) of the shortest that count, at least 1.
            Paragraphs are separated by blank lines. `least_paragraph` 0: no paragraphs.
        lower: see `lower_words`.

    Returns:
        uint64[k] and int64[n + 1]: the blocks of text i are `hashes[starts[i]:starts[i + 1]]`.
    """
    n = len(offsets) - 1
    room, longest = 0, 0
    for text in range(n):
        size = offsets[text + 1] - offsets[text]
        longest = max(longest, size)
        room += min(2 * depth, size // least_line)
        if least_paragraph:
            room += size // least_paragraph
    depth = min(depth, longest + 1)
    hashes = np.empty(room, np.uint64)
    starts = np.zeros(n + 1, np.int64)
    last = np.zeros(depth, np.uint64)
    k = 0
    for text in range(n):
        at, end = offsets[text], offsets[text + 1]
        first = k
        lines, characters, words = 0, 0, 0
        paragraph = np.uint64(PARAGRAPH)
        while at < end:
            at, line, paragraph, more, more_words = _line(data, at, end, paragraph, lower)
            at += 1
            if more_words:
                characters += more
                words += more_words
                if depth:
                    block = _block(line, more, more_words, least_line)
                    if lines >= depth:
                        last[lines % depth] = block
                    elif block:
                        hashes[k] = block
                        k += 1
                lines += 1
            if words and (not more_words or at >= end):
                block = _block(paragraph, characters, words, least_paragraph)
                if block and least_paragraph:
                    hashes[k] = block
                    k += 1
                characters, words, paragraph = 0, 0, np.uint64(PARAGRAPH)
        for number in range(max(depth, lines - depth), lines if depth else 0):
            if last[number % depth]:
                hashes[k] = last[number % depth]
                k += 1
        if k > first:
            k = _sort_unique(hashes, first, k)
        starts[text + 1] = k
    return hashes[:k].copy(), starts


@kernel
def _sort_unique(hashes: Hashes, first: int, stop: int) -> int:
    """Sorts hashes[first:stop] and drops repeats, in place; returns the new stop."""
    hashes[first:stop].sort()
    kept = first + 1
    for i in range(first + 1, stop):
        if hashes[i] != hashes[kept - 1]:
            hashes[kept] = hashes[i]
            kept += 1
    return kept


@kernel
def _place(known: Hashes, value: np.uint64) -> int:
    """Index of a value, not 0, in a sorted array; -1 if it is missing."""
    low, high = 0, len(known)
    while low < high:
        middle = (low + high) // 2
        if known[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low if value != 0 and low < len(known) and known[low] == value else -1


@kernel
def texts_with_blocks(known: Hashes, hashes: Hashes, starts: Places) -> NDArray[np.bool_]:
    """Which of n texts have at least one block among `known` (sorted): bool[n]."""
    found = np.zeros(len(starts) - 1, np.bool_)
    for text in range(len(found)):
        for i in range(starts[text], starts[text + 1]):
            if _place(known, hashes[i]) >= 0:
                found[text] = True
                break
    return found


@kernel
def remove_blocks(
    data: NDArray[np.uint8],
    offsets: Places,
    where: NDArray[np.bool_],
    groups: Hashes,
    known: Hashes,
    keepers: Hashes,
    depth: int,
    least_line: int,
    least_paragraph: int,
    share: float,
    lower: NDArray[np.uint32],
) -> tuple[NDArray[np.uint8], Places, Places]:
    """Removes the blocks in `known` (sorted) from the texts where `where` is true; see `boilerplate.strip`.

    Args:
        groups: of each text, uint64[n].
        keepers: for each block in `known`, the group whose texts keep it if it is a paragraph.

    Returns:
        The texts, and int64[n]: how many paragraphs, and lines outside of these, were removed from each.
    """
    n = len(offsets) - 1
    out = np.empty(len(data), np.uint8)
    out_offsets = np.zeros(n + 1, np.int64)
    removed = np.zeros(n, np.int64)
    to = 0
    for text in range(n):
        at, end = offsets[text], offsets[text + 1]
        if where[text]:
            begins, stops, marks, count = _mark_lines(
                data, at, end, groups[text], known, keepers, depth, least_line, least_paragraph, lower
            )
            if count and _has_rest(data, at, end, begins, stops, marks, share):
                removed[text] = count
                to = _copy_rest(data, begins, stops, marks, out, to)
                out_offsets[text + 1] = to
                continue
        out[to : to + end - at] = data[at:end]
        to += end - at
        out_offsets[text + 1] = to
    return out[:to], out_offsets, removed


_BLANK, _KEPT, _REMOVED = 0, 1, 2


@kernel
def _mark_lines(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    group: np.uint64,
    known: Hashes,
    keepers: Hashes,
    depth: int,
    least_line: int,
    least_paragraph: int,
    lower: NDArray[np.uint32],
) -> tuple[Places, Places, NDArray[np.int8], int]:
    """A text's lines (begins and stops), a mark for each, and the number of blocks to remove."""
    total = 1
    for i in range(at, end):
        total += data[i] == 0x0A
    begins, stops = np.empty(total, np.int64), np.empty(total, np.int64)
    marks = np.zeros(total, np.int8)
    is_known = np.zeros(total, np.bool_)
    number, first, count = 0, 0, 0
    characters, words = 0, 0
    paragraph = np.uint64(PARAGRAPH)
    while number < total:
        stop, line, paragraph, more, more_words = _line(data, at, end, paragraph, lower)
        begins[number], stops[number] = at, stop
        at = stop + 1
        if more_words:
            marks[number] = _KEPT
            is_known[number] = _place(known, _block(line, more, more_words, least_line)) >= 0
            characters += more
            words += more_words
        number += 1
        if words and (not more_words or number == total):
            place = _place(known, _block(paragraph, characters, words, least_paragraph)) if least_paragraph else -1
            if place >= 0 and keepers[place] != group:
                count += 1
                for i in range(first, number):
                    if marks[i] == _KEPT:
                        marks[i] = _REMOVED
            characters, words, paragraph = 0, 0, np.uint64(PARAGRAPH)
        if not more_words:
            first = number
    for step in (1, -1):
        i, seen = (0 if step == 1 else total - 1), 0
        while 0 <= i < total and seen < depth:
            if marks[i] != _BLANK:
                if marks[i] == _KEPT:
                    if not is_known[i]:
                        break
                    marks[i] = _REMOVED
                    count += 1
                seen += 1
            i += step
    return begins, stops, marks, count


@kernel
def _has_rest(
    data: NDArray[np.uint8], at: int, end: int, begins: Places, stops: Places, marks: NDArray[np.int8], share: float
) -> bool:
    """Do the marked lines make up at most `share` of a text's characters, and is any line kept?"""
    characters, going, stays = 0, 0, False
    for i in range(at, end):
        characters += (data[i] & 0xC0) != 0x80
    for line in range(len(begins)):
        stays = stays or marks[line] == _KEPT
        if marks[line] == _REMOVED:
            for i in range(begins[line], stops[line]):
                going += (data[i] & 0xC0) != 0x80
    return stays and going <= share * characters


@kernel
def _copy_rest(
    data: NDArray[np.uint8], begins: Places, stops: Places, marks: NDArray[np.int8], out: NDArray[np.uint8], to: int
) -> int:
    """Copies the kept lines and blank ones between them; blank lines after a removed line are removed with it."""
    first, last = 0, len(marks) - 1
    while marks[first] != _KEPT:
        first += 1
    while marks[last] != _KEPT:
        last -= 1
    after_removed = False
    for line in range(first, last + 1):
        if marks[line] == _REMOVED:
            after_removed = True
        elif marks[line] == _KEPT or not after_removed:
            after_removed = False
            if line > first:
                out[to] = 0x0A
                to += 1
            size = stops[line] - begins[line]
            out[to : to + size] = data[begins[line] : stops[line]]
            to += size
    return to


@kernel
def count_blocks(counters: NDArray[np.uint8], hashes: Hashes) -> None:
    """Adds 1 to the counter of each block, up to 255; the number of counters is a power of two."""
    last = np.uint64(len(counters) - 1)
    for i in range(len(hashes)):
        place = np.int64(hashes[i] & last)
        if counters[place] < 255:
            counters[place] += np.uint8(1)


@kernel
def frequent_blocks(counters: NDArray[np.uint8], hashes: Hashes, least: int) -> NDArray[np.bool_]:
    """Which blocks have a counter of at least `least`: bool[k]."""
    last = np.uint64(len(counters) - 1)
    found = np.empty(len(hashes), np.bool_)
    for i in range(len(hashes)):
        found[i] = counters[np.int64(hashes[i] & last)] >= least
    return found
