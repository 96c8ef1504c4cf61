"""How sources are mixed: blocks of 1,024 slots with fixed counts per source, shuffled by key.

A source's slots in a block are numbered in order, so that its counter only ever grows: however many slots of a block
are used, the samples drawn from a source are its first ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.tokens.feistel import invert, keyed_hash, permute

I64 = NDArray[np.int64]

BLOCK = 1024
_SLOT = 4
_MOST_SLOTS = 1 << 20
"""Maximum slots searched at once."""


def largest_remainder(weights: NDArray[np.float64], total: int = BLOCK) -> I64:
    """Splits `total` slots by weights (Hamilton's method): floors, then one each to the largest remainders.

    Equal remainders go to the earlier source.
    """
    shares = weights / weights.sum() * total
    counts = np.floor(shares).astype(np.int64)
    remainders = np.round(shares - counts, 9)
    counts[np.argsort(-remainders, kind="stable")[: total - int(counts.sum())]] += 1
    return counts


@dataclass(frozen=True, eq=False)
class Mixture:
    """The blocks of one segment of a run: slot -> (source, number of the draw within the source), and back."""

    counts: I64
    """[sources], summing to BLOCK: slots per source in every block."""
    key: int

    def forward(self, stream: I64, block: I64, slot: I64) -> tuple[I64, I64]:
        """(source [n], number within the source since the segment began [n]) of slots."""
        alone = int(np.argmax(self.counts))
        if self.counts[alone] == BLOCK:
            return np.full(len(slot), alone, dtype=np.int64), block * BLOCK + slot
        code = stream * (int(block.max()) + 1 if block.size else 1) + block
        _, first, which = np.unique(code, return_index=True, return_inverse=True)
        source, order = self._tables(stream[first], block[first])
        rank = np.empty_like(order)
        begins = np.cumsum(self.counts) - self.counts
        ordered = np.repeat(np.arange(len(self.counts)), self.counts)
        np.put_along_axis(rank, order, np.arange(BLOCK) - begins[ordered][None], axis=1)
        found = source[which, slot].astype(np.int64)
        return found, block * self.counts[found] + rank[which, slot]

    def backward(self, stream: I64, source: I64, number: I64) -> I64:
        """Slot since the segment began, of the `number`-th draw from a source in a data stream: int64 [n]."""
        slot = np.empty_like(number)
        for s in np.unique(source).tolist():
            here = np.flatnonzero(source == s)
            slot[here] = self._backward(s, stream[here], number[here])
        return slot

    def _backward(self, source: int, stream: I64, number: I64) -> I64:
        """`backward` of one source. Only its own slots of a block are looked for: a rare source, which comes again and
        again, costs little for each time."""
        count = int(self.counts[source])
        if count == BLOCK:
            return number
        first = int(self.counts[:source].sum())
        places = np.arange(first, first + count, dtype=np.int64)[None]
        block, nth = np.divmod(number, count)
        code = stream * (int(block.max()) + 1) + block
        _, one, which = np.unique(code, return_index=True, return_inverse=True)
        keys = keyed_hash(self.key, _SLOT, stream[one], block[one])
        slot, step = np.empty_like(number), max(1, _MOST_SLOTS // count)
        for low in range(0, len(keys), step):
            slots = np.sort(invert(places, BLOCK, keys[low : low + step, None]), axis=1)
            here = np.flatnonzero((which >= low) & (which < low + step))
            slot[here] = block[here] * BLOCK + slots[which[here] - low, nth[here]]
        return slot

    def count_draws(self, streams: int, slots: int) -> I64:
        """How often each source is drawn in the first `slots` slots of each stream: int64 [sources, streams]."""
        blocks, rest = divmod(slots, BLOCK)
        out = np.repeat((blocks * self.counts)[:, None], streams, axis=1)
        if rest:
            stream = np.arange(streams, dtype=np.int64)
            source, _ = self._tables(stream, np.full(streams, blocks, dtype=np.int64))
            for index in range(streams):
                out[:, index] += np.bincount(source[index, :rest], minlength=len(self.counts))
        return out

    def _tables(self, stream: I64, block: I64) -> tuple[NDArray[np.uint16], I64]:
        """Per block: the source of each slot, and its slots sorted by (source, slot). Both [blocks, BLOCK]."""
        keys = keyed_hash(self.key, _SLOT, stream, block)[:, None] if stream.size else np.zeros((0, 1), np.uint64)
        by_place = np.repeat(np.arange(len(self.counts), dtype=np.uint16), self.counts)
        source = by_place[permute(np.arange(BLOCK, dtype=np.int64)[None], BLOCK, keys)]
        return source, np.argsort(source, axis=1, kind="stable").astype(np.int64)
