"""Keyed permutations of the integers below n, computed element by element and invertible.

A Feistel network permutes the numbers of b bits for any round function (Luby and Rackoff 1988); cycle walking brings
it down to [0, n): what falls outside is put through again until it falls inside, less than twice on average (Black and
Rogaway 2002). So an order over n things needs no memory, gives the i-th thing at once, and answers "when does this
thing come?" by running backwards. The two parts are as equal as b allows (they differ by a bit when b is odd), which
keeps the domain below 2n. Of 5 to 7 things not every permutation is equally likely (a thing lands at each place within
an eighth of its share); from 8 on our tests do not tell it from chance.

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
    out = value ^ (value >> _SHIFT)
    out *= _MIX_A
    out ^= out >> _SHIFT
    out *= _MIX_B
    out ^= out >> _SHIFT
    return out


def keyed(key: ArrayLike, *values: ArrayLike) -> U64:
    """A 64-bit hash of non-negative integers under a key; arrays broadcast against each other."""
    out = np.atleast_1d(np.asarray(key, dtype=np.uint64))
    for value in values:
        out = mix((out ^ np.asarray(value).astype(np.uint64)) + _STEP)
    return out


def permute(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where the permutation of [0, n) under `key` sends each index. All three broadcast; an index is below its n.

    Raises:
        ValueError: an index outside [0, n).
    """
    return _walk(index, n, key, _forward)


def invert(index: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """The inverse of `permute`: `invert(permute(i, n, key), n, key) == i`."""
    return _walk(index, n, key, _backward)


_Network = Callable[[U64, U64, U64, U64], U64]


def _walk(index: ArrayLike, n: ArrayLike, key: ArrayLike, network: _Network) -> NDArray[np.int64]:
    i, size, keys = np.broadcast_arrays(
        np.asarray(index, dtype=np.int64), np.asarray(n, dtype=np.int64), np.asarray(key, dtype=np.uint64)
    )
    if i.size and (bool((i < 0).any()) or bool((i >= size).any())):
        raise ValueError("feistel: an index lies outside [0, n)")
    shape = i.shape
    value, limit, keys = i.ravel().astype(np.uint64), size.ravel().astype(np.uint64), keys.ravel()
    bits = _bit_length(limit - np.uint64(1)) if value.size else limit
    low = bits >> np.uint64(1)
    value = network(value, keys, bits, low)
    outside = np.flatnonzero(value >= limit)
    while outside.size:
        value[outside] = network(value[outside], keys[outside], bits[outside], low[outside])
        outside = outside[value[outside] >= limit[outside]]
    return value.astype(np.int64).reshape(shape)


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


def _parts(value: U64, bits: U64, low: U64) -> tuple[U64, U64, U64, U64]:
    one = np.uint64(1)
    right_mask = (one << low) - one
    left_mask = (one << (bits - low)) - one
    return value >> low, value & right_mask, left_mask, right_mask


def _forward(value: U64, key: U64, bits: U64, low: U64) -> U64:
    left, right, left_mask, right_mask = _parts(value, bits, low)
    for index in range(ROUNDS):
        if index % 2 == 0:
            left = left ^ (mix(right + (key + _ROUND_STEPS[index])) & left_mask)
        else:
            right = right ^ (mix(left + (key + _ROUND_STEPS[index])) & right_mask)
    return (left << low) | right


def _backward(value: U64, key: U64, bits: U64, low: U64) -> U64:
    left, right, left_mask, right_mask = _parts(value, bits, low)
    for index in reversed(range(ROUNDS)):
        if index % 2 == 0:
            left = left ^ (mix(right + (key + _ROUND_STEPS[index])) & left_mask)
        else:
            right = right ^ (mix(left + (key + _ROUND_STEPS[index])) & right_mask)
    return (left << low) | right
