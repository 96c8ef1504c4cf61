"""The order inside one source: from a counter in a lane to a sample, and back.

A source's samples, its shards in an order fixed by the key, are cut into lanes; a piece is a shard or the part of one
that lies in a lane. In each epoch a lane's pieces are sorted by keyed hash, `window` consecutive pieces form a window,
and a keyed permutation orders the samples inside each window. So a reader holds `window` shards a lane at a time, and
any counter is found from the table of pieces alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.tokens.feistel import invert, keyed, permute
from stages.tokens.table import ShardTable

I64 = NDArray[np.int64]

_SHARD, _PIECE, _WINDOW = 1, 2, 3
_MOST_PIECES = 1 << 22
"""Pieces sorted at once; more (a batch that touches very many epochs of a large source) are done in parts."""
_FEW = 16
"""Epochs looked up one by one, each from a table that is kept; many small ones are laid side by side instead."""
_LONG = 256
"""Counters of one epoch (or window) that are worth the calls of numpy for it alone."""
_KEPT_PIECES = 1 << 20
"""Pieces in the tables that are kept: 24 bytes each."""


@dataclass(frozen=True)
class _Epoch:
    """One epoch of a lane of a source: its pieces in the order they are read [pieces], and its windows [windows]."""

    piece: I64
    begin: I64
    end: I64
    window_end: I64
    window_key: NDArray[np.uint64]
    window: int
    """Pieces a window."""

    def at(self, within: I64) -> tuple[I64, I64]:
        """(piece [n], sample within the piece [n]) of counters within the epoch.

        Neighbours mostly lie in one window. Then its key is one number and the search is among its few pieces.
        """
        which = np.searchsorted(self.window_end, within, side="right")
        cuts = np.flatnonzero(which[1:] != which[:-1]) + 1
        first = self.begin[:: self.window]
        if len(cuts) * _LONG > len(within):
            low = first[which]
            target = low + permute(within - low, self.window_end[which] - low, self.window_key[which])
            at = np.searchsorted(self.end, target, side="right")
            return self.piece[at], target - self.begin[at]
        piece, sample = np.empty_like(within), np.empty_like(within)
        for run in map(slice, [0, *cuts.tolist()], [*cuts.tolist(), len(within)]):
            number = int(which[run.start])
            begin, here = int(first[number]), slice(number * self.window, (number + 1) * self.window)
            target = permute(within[run] - begin, self.window_end[number] - begin, self.window_key[number])
            target += begin
            at = np.searchsorted(self.end[here], target, side="right")
            piece[run] = self.piece[here][at]
            sample[run] = target - self.begin[here][at]
        return piece, sample


@dataclass(frozen=True)
class _Epochs:
    """Pieces of several (lane of a source, epoch) pairs one after another, in the order they are read: arrays [T]."""

    first: I64
    """Per pair: where its pieces begin in the other arrays."""
    piece: I64
    begin: I64
    end: I64
    window_begin: I64
    window_size: I64
    window_key: NDArray[np.uint64]


class Located(NamedTuple):
    """Rows of a source as samples of its pieces: arrays of one length."""

    which: I64
    """Index of the row among those that were asked for."""
    lane: I64
    piece: I64
    sample: I64
    """Sample within the piece."""


class Pieces:
    """All pieces at one k, and the shuffle over them.

    Args:
        shards: the table of shards.
        k: rows a sample.
        lanes: number of lanes C.
        window: pieces a window.
        key: 64-bit key.
    """

    def __init__(self, shards: ShardTable, k: int, lanes: int, window: int, key: int):
        self.k, self.lanes, self.window = k, lanes, window
        self.key = keyed(key, k)
        parts = [_cut(rows, source, k, lanes, self.key) for source, rows in enumerate(shards.rows)]
        group, self.shard, self.first, self.length, self.start = (
            np.concatenate([part[column] for part in parts]) if parts else np.zeros(0, np.int64) for column in range(5)
        )
        groups = np.arange(len(shards.sources) * lanes + 1)
        self.group_first: I64 = np.searchsorted(group, groups[:-1]).astype(np.int64)
        self.group_count: I64 = np.searchsorted(group, groups[:-1], side="right") - self.group_first
        total = shards.samples(k)[:, None]
        bounds = np.arange(lanes + 1, dtype=np.int64)[None] * total // lanes
        self.bounds: I64 = bounds
        """[sources, lanes + 1]: lane i holds the samples bounds[i] to bounds[i + 1] - 1 of the source."""
        self.samples: I64 = np.diff(bounds, axis=1)
        """[sources, lanes]: samples of one epoch."""
        self._kept: OrderedDict[tuple[int, int], _Epoch] = OrderedDict()

    def forward(self, source: I64, lane: I64, counter: I64) -> tuple[I64, I64]:
        """(shard [n], first row [n]) of each counter of a source in a lane."""
        n = self.samples[source, lane]
        epoch = counter // n
        group = source * self.lanes + lane
        (groups, epochs), which = _unique_pairs(group, epoch)
        within = counter - epoch * n
        if len(groups) > max(_FEW, len(which) // _LONG):
            return self._forward(groups, epochs, which, within)
        shard, row = np.empty_like(within), np.empty_like(within)
        for members, *pair in zip(_members(which, len(groups)), groups.tolist(), epochs.tolist(), strict=True):
            piece, sample = self._epoch(*pair).at(within[members])
            shard[members] = self.shard[piece]
            row[members] = (self.first[piece] + sample) * self.k
        return shard, row

    def _forward(self, group: I64, epoch: I64, which: I64, within: I64) -> tuple[I64, I64]:
        if len(group) > 1 and int(self.group_count[group].sum()) > _MOST_PIECES:
            half = len(group) // 2
            shard, row = np.empty_like(within), np.empty_like(within)
            for part, low, high in ((which < half, 0, half), (which >= half, half, len(group))):
                shard[part], row[part] = self._forward(
                    group[low:high], epoch[low:high], which[part] - low, within[part]
                )
            return shard, row
        table = self._epochs(group, epoch)
        target = table.begin[table.first[which]] + within
        at = np.searchsorted(table.end, target, side="right")
        window = table.window_begin[at]
        target = window + permute(target - window, table.window_size[at], table.window_key[at])
        at = np.searchsorted(table.end, target, side="right")
        piece = table.piece[at]
        return self.shard[piece], (self.first[piece] + target - table.begin[at]) * self.k

    def locate(self, source: int, shard: I64, row: I64) -> Located:
        """Where rows of a source lie. Rows that are left out at this k are not among them."""
        low, end = source * self.lanes, (source + 1) * self.lanes
        first = int(self.group_first[low])
        pieces = slice(first, first + int(self.group_count[low:end].sum()))
        sample, piece = row // self.k, np.full_like(row, -1)
        for number in np.unique(shard).tolist():
            here = first + np.flatnonzero(self.shard[pieces] == number)  # ascending by first sample
            mine = np.flatnonzero(shard == number)
            at = np.searchsorted(self.first[here], sample[mine], side="right") - 1
            mine, at = mine[at >= 0], at[at >= 0]
            inside = sample[mine] < self.first[here[at]] + self.length[here[at]]
            piece[mine[inside]] = here[at[inside]]
        which = np.flatnonzero(piece >= 0)
        piece = piece[which]
        lane = np.searchsorted(self.bounds[source], self.start[piece], side="right") - 1
        return Located(which, lane.astype(np.int64), piece, sample[which] - self.first[piece])

    def counters(self, source: int, lane: int, piece: int, samples: I64, epochs: int) -> I64:
        """The counters at which samples of one piece come in each of the first epochs: int64 [epochs, samples]."""
        group = source * self.lanes + lane
        step = max(1, _MOST_PIECES // max(1, int(self.group_count[group])))
        found = [np.zeros((0, len(samples)), np.int64)]
        for low in range(0, epochs, step):
            epoch = np.arange(low, min(low + step, epochs), dtype=np.int64)
            begin, window, size, key = self._place(group, piece, epoch)
            place = begin[:, None] + samples - window[:, None]
            within = window[:, None] + invert(place, size[:, None], key[:, None])
            found.append(epoch[:, None] * self.samples[source, lane] + within)
        return np.concatenate(found)

    def _epoch(self, group: int, epoch: int) -> _Epoch:
        """One epoch's table, kept for the next call."""
        found = self._kept.pop((group, epoch), None)
        if found is None:
            both = self._epochs(np.array([group]), np.array([epoch]))
            last = np.append(np.arange(self.window, len(both.piece), self.window), len(both.piece)) - 1
            found = _Epoch(both.piece, both.begin, both.end, both.end[last], both.window_key[last], self.window)
            room = _KEPT_PIECES - len(found.piece)
            while self._kept and sum(len(kept.piece) for kept in self._kept.values()) > room:
                self._kept.popitem(last=False)
        self._kept[group, epoch] = found
        return found

    def _place(self, group: int, piece: int, epoch: I64) -> tuple[I64, I64, I64, NDArray[np.uint64]]:
        """Of one piece in some epochs: its first sample, its window's first sample, size and key; each [epochs].

        Where one piece comes is told by counting those before it. That needs their hashes sorted, and no piece moved,
        which is ten times quicker than the whole epoch's table.
        """
        first, count = int(self.group_first[group]), int(self.group_count[group])
        pieces, length = np.arange(first, first + count), self.length[first : first + count]
        key = keyed(self.key, group, epoch)
        hashes = keyed(key[:, None], _PIECE, pieces[None])
        mine = hashes[:, piece - first, None]
        window = np.count_nonzero(hashes < mine, axis=1) // self.window
        edges = np.stack([window * self.window, np.minimum((window + 1) * self.window, count) - 1], axis=1)
        low, high = np.take_along_axis(np.sort(hashes, axis=1), edges, axis=1).T[:, :, None]
        before = np.where(hashes < low, length, 0).sum(axis=1)
        size = np.where((hashes >= low) & (hashes <= high), length, 0).sum(axis=1)
        begin = np.where(hashes < mine, length, 0).sum(axis=1)
        return begin, before, size, keyed(key, _WINDOW, window)

    def _epochs(self, group: I64, epoch: I64) -> _Epochs:
        count = self.group_count[group]
        first = np.concatenate([[0], np.cumsum(count)])
        owner = np.repeat(np.arange(len(group)), count)
        number = np.arange(len(owner), dtype=np.int64)
        piece = number + np.repeat(self.group_first[group] - first[:-1], count)
        key = keyed(self.key, group, epoch)
        piece = piece[np.lexsort((keyed(key[owner], _PIECE, piece), owner))]
        end = np.cumsum(self.length[piece])
        begin = end - self.length[piece]
        window = (number - first[owner]) // self.window
        window_first = first[owner] + window * self.window
        window_last = np.minimum(window_first + self.window, first[owner + 1]) - 1
        return _Epochs(
            first=first[:-1],
            piece=piece,
            begin=begin,
            end=end,
            window_begin=begin[window_first],
            window_size=end[window_last] - begin[window_first],
            window_key=keyed(key[owner], _WINDOW, window),
        )


def _cut(rows: I64, source: int, k: int, lanes: int, key: NDArray[np.uint64]) -> tuple[I64, I64, I64, I64, I64]:
    """Cuts one source into pieces: (group, shard, first sample in the shard, samples, first sample in the source)."""
    order = np.argsort(keyed(key, _SHARD, source, np.arange(len(rows))), kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(rows[order] // k)]).astype(np.int64)
    bounds = np.arange(lanes + 1, dtype=np.int64) * starts[-1] // lanes
    cuts = np.sort(np.concatenate([starts, bounds]), kind="stable")  # two runs in order, which it merges
    begin, length = cuts[:-1], np.diff(cuts)
    begin, length = begin[length > 0], length[length > 0]
    shard = np.searchsorted(starts, begin, side="right") - 1
    lane = np.searchsorted(bounds, begin, side="right") - 1
    return source * lanes + lane, order[shard], begin - starts[shard], length, begin


def _unique_pairs(group: I64, epoch: I64) -> tuple[tuple[I64, I64], I64]:
    """The different (group, epoch) pairs and, for each element, which pair it is. Without sorting where it can be."""
    if not group.size:
        return (group, epoch), group
    low = int(epoch.min())
    span = int(epoch.max()) - low + 1
    code = group * span + (epoch - low)
    base = int(code.min())
    size = int(code.max()) - base + 1
    if size <= 8 * len(code) + 4096:
        seen = np.zeros(size, dtype=bool)
        seen[code - base] = True
        different = np.flatnonzero(seen) + base
        which = (np.cumsum(seen) - 1)[code - base]
    else:
        different, which = np.unique(code, return_inverse=True)
    return (different // span, different % span + low), which.astype(np.int64)


def _members(which: I64, count: int) -> list[slice | I64]:
    """Per number below `count`: where it stands in `which`, in rising order."""
    if count < 2:
        return [slice(None)] * count
    narrow = which.astype(np.uint16 if count < 1 << 16 else np.int64)  # of 16 bits numpy sorts by radix
    ordered = np.argsort(narrow, kind="stable")
    return np.split(ordered, np.cumsum(np.bincount(which, minlength=count))[:-1])  # type: ignore[return-value]
