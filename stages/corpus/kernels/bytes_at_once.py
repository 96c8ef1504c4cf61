"""Kernels that process eight bytes at a time: the end of a word, and hashes of byte strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.character_classes import space_size

Bytes = NDArray[np.uint8]

SEED = 0xCBF29CE484222325
MULTIPLIER = 0x9E3779B97F4A7C15


def _load_u64(context: Any, data: Any, place: Any) -> Any:
    """The bytes data[place:place + 8] as a little-endian number; the caller checks the bounds.

    A single unaligned load: numpy can only view whole, aligned arrays as larger numbers.
    """
    if not (isinstance(data, types.Array) and data.dtype == types.uint8 and isinstance(place, types.Integer)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        first = builder.gep(array.data, [arguments[1]])
        return builder.load(builder.bitcast(first, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.int64), code


def _trailing_zeros(context: Any, number: Any) -> Any:
    """Zero bits below the lowest set bit of a number that is not 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), code


load_u64: Any = intrinsic(_load_u64)
trailing_zeros: Any = intrinsic(_trailing_zeros)


@kernel
def end_of_word(data: Bytes, i: int, end: int) -> int:
    """Where the next white space (`str.isspace`) is at or after data[i], `end` if there is none."""
    while i + 8 <= len(data):
        word = load_u64(data, i)
        # The highest bit of each byte: set in the lowest byte that is up to 0x20 or from 0x80 on; above that one,
        # subtraction may borrow.
        odd = (((word - np.uint64(0x2121212121212121)) & ~word) | word) & np.uint64(0x8080808080808080)
        if not odd:
            i += 8
            if i >= end:
                return end
            continue
        i += np.int64(trailing_zeros(odd) >> np.uint64(3))  # type: ignore[assignment]
        if i >= end:
            return end
        if space_size(data, i, end):
            return i
        i += 1
    while i < end and not space_size(data, i, end):
        i += 1
    return min(i, end)


@kernel
def hash_of_bytes(data: Bytes, begin: int, end: int) -> np.uint64:
    """A hash of data[begin:end]; two different strings of equal length up to eight bytes never collide."""
    h = np.uint64(SEED) ^ np.uint64(end - begin)
    i = begin
    while i + 8 <= end:
        h = (h ^ load_u64(data, i)) * np.uint64(MULTIPLIER)
        h ^= h >> np.uint64(29)
        i += 8
    if i < end:
        if i + 8 <= len(data):
            word = load_u64(data, i) & ((np.uint64(1) << np.uint64(8 * (end - i))) - np.uint64(1))
        else:
            word = np.uint64(0)
            for j in range(i, end):
                word |= np.uint64(data[j]) << np.uint64(8 * (j - i))
        h = (h ^ word) * np.uint64(MULTIPLIER)
        h ^= h >> np.uint64(29)
    return h
