r"""Hashes of the lower-case words of texts, straight from their bytes.

A word here is a match of `re.findall(r"\w+", text)`, in simple lower case (see `lower_words`). Its hash is over the
UTF-8 of that, eight bytes at a time, each block folded in by one multiplication, then length and MurmurHash3's
finaliser: 64 well-mixed bits, the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.characters import CODE_POINTS, OTHER, ascii_words, decode, lower_words

_FOLD = np.uint64(0x9FB21C651E98DF25)
_LENGTH = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX2 = np.uint64(0xC4CEB9FE1A85EC53)
_EIGHT, _28, _33 = np.uint64(8), np.uint64(28), np.uint64(33)
_SEVEN, _ONE, _NONE = np.uint64(7), np.uint64(1), np.uint64(0)


def word_hashes(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash of each word of each text, in order.

    Returns:
        (hashes: uint64[words], starts: int64[n + 1]): the words of text i are `hashes[starts[i]:starts[i + 1]]`.
    """
    return _word_hashes(data, offsets, ascii_words(), lower_words())


@kernel
def mix64(value: np.uint64) -> np.uint64:
    """MurmurHash3's finaliser: a permutation of 64 bits in which every bit depends on every bit."""
    value ^= value >> _33
    value *= _MIX1
    value ^= value >> _33
    value *= _MIX2
    return value ^ (value >> _33)


@kernel
def _fold(state: np.uint64, block: np.uint64) -> np.uint64:
    state = (state ^ block) * _FOLD
    return state ^ (state >> _28)


@kernel
def _word_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], narrow: NDArray[np.uint8], wide: NDArray[np.uint32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    count = len(offsets) - 1
    starts = np.zeros(count + 1, np.int64)
    # Two words of one text are separated by at least a byte.
    out = np.empty((offsets[count] - offsets[0] + count) // 2 + 1, np.uint64)
    found = 0
    for i in range(count):
        place, end = offsets[i], offsets[i + 1]
        state, block, length = _NONE, _NONE, _NONE
        while place < end:
            small = narrow[data[place]]
            if small == OTHER:
                code, size = decode(data, place, end)
                lower = wide[code] if code < CODE_POINTS else np.uint32(0)
                place += size
                if lower:
                    state, block, length = _with_code_point(state, block, length, lower)
                    continue
            else:
                place += 1
                if small:
                    block = (block << _EIGHT) | np.uint64(small)
                    length += _ONE
                    if length & _SEVEN == _NONE:
                        state, block = _fold(state, block), _NONE
                    continue
            if length:
                out[found] = mix64((state ^ block) + length * _LENGTH)
                found += 1
                state, block, length = _NONE, _NONE, _NONE
        if length:
            out[found] = mix64((state ^ block) + length * _LENGTH)
            found += 1
        starts[i + 1] = found
    return out[:found], starts


@kernel
def _with_code_point(
    state: np.uint64, block: np.uint64, length: np.uint64, code: np.uint32
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """The hash's state after the UTF-8 of one more code point."""
    value = np.uint64(code)
    size = 1 if value < 0x80 else 2 if value < 0x800 else 3 if value < 0x10000 else 4
    for k in range(size):
        byte = value
        if size > 1:
            low = (value >> np.uint64(6 * (size - 1 - k))) & np.uint64(0x3F)
            lead = np.uint64((0xF00 >> size) & 0xFF)
            byte = (value >> np.uint64(6 * (size - 1))) | lead if k == 0 else low | np.uint64(0x80)
        block = (block << _EIGHT) | byte
        length += _ONE
        if length & _SEVEN == _NONE:
            state, block = _fold(state, block), _NONE
    return state, block, length
