"""Keyed permutations of the integers below n, computed element by element and invertible.

A Feistel network permutes the numbers of b bits for any round function (Luby and Rackoff 1988); cycle walking restricts
it to [0, n): a result outside is permuted again until it is inside, less than twice on average (Black and Rogaway
2002). So an order over n elements needs no memory, gives the i-th element directly, and its inverse gives the place of
an element. The two halves are as equal as b allows (they differ by a bit when b is odd), which keeps the domain below
2n. For 5 to 7 elements the permutations are not equally likely (probabilities differ by up to an eighth); from 8 on our
tests cannot distinguish them from random ones.

All arithmetic is numpy uint64 modulo 2^64, so that results are the same on every machine. Safe for n up to 2^62.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = NDArray[np.uint64]

ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_STEP = np.uint64(_GOLDEN)
_ROUND_STEPS = tuple(np.uint64((_GOLDEN * (index + 1)) % 2**64) for index in range(ROUNDS))
_MIX_A = np.uint64(0xFF51AFD7ED558CCD)
_MIX_B = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)


def mix(value: U64) -> U64:
    """MurmurHash3's 64-bit finaliser: a bijection of uint64 in which every input bit moves every output bit."""
    return _mix(value.copy(), np.empty_like(value))


def _mix(value: U64, scratch: U64) -> U64:
    """`mix` in place, with an array of `value`'s shape as scratch space: it dominates the cost of an order."""
    for factor in (_MIX_A, _MIX_B):
        value ^= np.right_shift(value, _SHIFT, out=scratch)
        value *= factor
    value ^= np.right_shift(value, _SHIFT, out=scratch)
    return value


def keyed_hash(key: ArrayLike, *values: ArrayLike) -> U64:
    """A 64-bit hash of non-negative integers under a key; arrays broadcast against each other."""
    out = np.atleast_1d(np.asarray(key, dtype=np.uint64))
    for value in values:
        out = mix((out ^ np.asarray(value).astype(np.uint64)) + _STEP)
    return out


def permute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """The image of each index under the permutation of [0, n) with this key. All three broadcast.

    Raises:
        ValueError: an index outside [0, n).
    """
    return _walk(index, n, key, _forward)


def invert(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """The inverse of `permute`: `invert(permute(i, n, key), n, key) == i`."""
    return _walk(index, n, key, _backward)


_Network = Callable[[U64, U64, U64, U64], U64]

_CHUNK = 4096
"""Numbers processed at once: the few arrays of this length fit into a core's L1 and L2 caches."""


def _walk(index: ArrayLike, n: ArrayLike, key: ArrayLike, network: _Network) -> NDArray[np.int64]:
    i, size, keys = np.asarray(index, dtype=np.int64), np.asarray(n, dtype=np.int64), np.asarray(key, dtype=np.uint64)
    if i.size and (int(i.min()) < 0 or bool((i >= size).any())):
        raise ValueError("feistel: an index is outside [0, n)")
    shape = np.broadcast_shapes(i.shape, size.shape, keys.shape)
    out = np.array(np.broadcast_to(i, shape)).ravel()
    value, limit = out.view(np.uint64), _spread(size.astype(np.uint64), shape)
    bits = _bit_length(limit - np.uint64(1))
    parameters = (_spread(keys, shape), bits, bits >> np.uint64(1))
    _apply_in_chunks(value, parameters, network)
    outside = np.flatnonzero(value >= limit)
    while outside.size:
        again = value[outside]
        _apply_in_chunks(again, tuple(_pick(array, outside) for array in parameters), network)
        value[outside] = again
        outside = outside[again >= _pick(limit, outside)]
    return out.reshape(shape)


def _spread(array: U64, shape: tuple[int, ...]) -> U64:
    """One-dimensional: a single number as it is, else broadcast to `shape`."""
    return array.reshape(1) if array.size == 1 else np.broadcast_to(array, shape).ravel()


def _pick(array: U64, which: slice | NDArray[np.int64]) -> U64:
    return array if array.size == 1 else array[which]


def _apply_in_chunks(value: U64, parameters: tuple[U64, ...], network: _Network) -> None:
    """Applies the network once to every number, in place."""
    for begin in range(0, value.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        value[part] = network(value[part], *(_pick(array, part) for array in parameters))


def _bit_length(value: U64) -> U64:
    """Bits needed to write each value (0 for 0), exact where a float logarithm would round."""
    bits = np.zeros(value.shape, dtype=np.uint64)
    rest = value.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        step = np.uint64(shift)
        big = rest >> step > 0
        bits += np.where(big, step, np.uint64(0))
        rest = np.where(big, rest >> step, rest)
    return bits + rest


def _split_halves(value: U64, bits: U64, low: U64) -> tuple[U64, U64, U64, U64]:
    one = np.uint64(1)
    right_mask = (one << low) - one
    left_mask = (one << (bits - low)) - one
    return value >> low, value & right_mask, left_mask, right_mask


def _forward(value: U64, key: U64, bits: U64, low: U64) -> U64:
    return _rounds(value, key, bits, low, range(ROUNDS))


def _backward(value: U64, key: U64, bits: U64, low: U64) -> U64:
    return _rounds(value, key, bits, low, range(ROUNDS - 1, -1, -1))


def _rounds(value: U64, key: U64, bits: U64, low: U64, rounds: range) -> U64:
    """Every round changes one half by a hash of the other, so that the rounds in reverse order are the inverse."""
    left, right, left_mask, right_mask = _split_halves(value, bits, low)
    hashed, scratch = np.empty_like(value), np.empty_like(value)
    for index in rounds:
        changed, other, mask = (left, right, left_mask) if index % 2 == 0 else (right, left, right_mask)
        np.add(other, key + _ROUND_STEPS[index], out=hashed)
        changed ^= np.bitwise_and(_mix(hashed, scratch), mask, out=hashed)
    left <<= low
    left |= right
    return left
