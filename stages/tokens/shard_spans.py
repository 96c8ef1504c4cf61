"""The order inside one source: from a counter in a data stream to a sample, and back.

A source's samples, its shards in an order fixed by the key, are divided among the data streams; a span is a shard, or
the part of one that belongs to a data stream. In each epoch a stream's spans are sorted by keyed hash,
`shuffle_window_shards` consecutive spans form a window, and a keyed permutation orders the samples inside each window.
So a reader needs `shuffle_window_shards` shards per stream at a time, and any counter is resolved from the table of
spans alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.tokens.feistel import invert, keyed_hash, permute
from stages.tokens.table import ShardTable

I64 = NDArray[np.int64]

_SHARD, _SPAN, _WINDOW = 1, 2, 3
_MOST_SPANS = 1 << 22
"""Maximum spans sorted at once; more (a batch that touches very many epochs of a large source) are split."""
_FEW_EPOCHS = 16
"""Up to this many epochs are looked up one by one, each from a cached table; more are concatenated instead."""
_LONG_RUN = 256
"""Counters of one epoch (or window) from which separate numpy calls for it pay off."""
_CACHED_SPANS = 1 << 20
"""Maximum spans in the cached tables: 24 bytes each."""


@dataclass(frozen=True)
class _Epoch:
    """One epoch of a source in a data stream: its spans in reading order [spans], and its windows [windows]."""

    span: I64
    begin: I64
    end: I64
    window_end: I64
    window_key: NDArray[np.uint64]
    spans_per_window: int

    def at(self, within: I64) -> tuple[I64, I64]:
        """(span [n], sample within the span [n]) of counters within the epoch.

        Consecutive counters mostly lie in one window: its key is then a scalar, and the search is among its few spans.
        """
        which = np.searchsorted(self.window_end, within, side="right")
        cuts = np.flatnonzero(which[1:] != which[:-1]) + 1
        first = self.begin[:: self.spans_per_window]
        if len(cuts) * _LONG_RUN > len(within):
            low = first[which]
            target = low + permute(within - low, self.window_end[which] - low, self.window_key[which])
            at = np.searchsorted(self.end, target, side="right")
            return self.span[at], target - self.begin[at]
        span, sample = np.empty_like(within), np.empty_like(within)
        for run in map(slice, [0, *cuts.tolist()], [*cuts.tolist(), len(within)]):
            number = int(which[run.start])
            begin, here = (
                int(first[number]),
                slice(number * self.spans_per_window, (number + 1) * self.spans_per_window),
            )
            target = permute(within[run] - begin, self.window_end[number] - begin, self.window_key[number])
            target += begin
            at = np.searchsorted(self.end[here], target, side="right")
            span[run] = self.span[here][at]
            sample[run] = target - self.begin[here][at]
        return span, sample


@dataclass(frozen=True)
class _Epochs:
    """Spans of several (group, epoch) pairs, concatenated in reading order: arrays [T].

    A group is a source in a data stream."""

    first: I64
    """Per pair: the index of its first span in the other arrays."""
    span: I64
    begin: I64
    end: I64
    window_begin: I64
    window_size: I64
    window_key: NDArray[np.uint64]


class Located(NamedTuple):
    """Rows of a source as samples of its spans: arrays of one length."""

    which: I64
    """Index of the row among the requested ones."""
    stream: I64
    span: I64
    sample: I64
    """Sample within the span."""


class ShardSpans:
    """All spans of a token stream at one sample length, and the shuffle over them.

    Args:
        shards: the table of shards.
        rows_per_sample: rows of the token stream in a sample.
        streams: number of data streams C.
        shuffle_window_shards: spans per shuffle window.
        key: 64-bit key.
    """

    def __init__(self, shards: ShardTable, rows_per_sample: int, streams: int, shuffle_window_shards: int, key: int):
        self.rows_per_sample, self.streams = rows_per_sample, streams
        self._spans_per_window = shuffle_window_shards
        self.key = keyed_hash(key, rows_per_sample)
        parts = [_cut(rows, source, rows_per_sample, streams, self.key) for source, rows in enumerate(shards.rows)]
        group, self.shard, self.first, self.length, self.start = (
            np.concatenate([part[column] for part in parts]) if parts else np.zeros(0, np.int64) for column in range(5)
        )
        groups = np.arange(len(shards.sources) * streams + 1)
        self.group_first: I64 = np.searchsorted(group, groups[:-1]).astype(np.int64)
        self.group_count: I64 = np.searchsorted(group, groups[:-1], side="right") - self.group_first
        total = shards.samples(rows_per_sample)[:, None]
        bounds = np.arange(streams + 1, dtype=np.int64)[None] * total // streams
        self.bounds: I64 = bounds
        """[sources, streams + 1]: stream i holds the samples bounds[i] to bounds[i + 1] - 1 of the source."""
        self.samples: I64 = np.diff(bounds, axis=1)
        """[sources, streams]: samples of one epoch."""
        self._cache: OrderedDict[tuple[int, int], _Epoch] = OrderedDict()

    def forward(self, source: I64, stream: I64, counter: I64) -> tuple[I64, I64]:
        """(shard [n], first row [n]) of each counter of a source in a stream."""
        n = self.samples[source, stream]
        epoch = counter // n
        group = source * self.streams + stream
        (groups, epochs), which = _unique_pairs(group, epoch)
        within = counter - epoch * n
        if len(groups) > max(_FEW_EPOCHS, len(which) // _LONG_RUN):
            return self._forward(groups, epochs, which, within)
        shard, row = np.empty_like(within), np.empty_like(within)
        for members, *pair in zip(_members(which, len(groups)), groups.tolist(), epochs.tolist(), strict=True):
            span, sample = self._epoch(*pair).at(within[members])
            shard[members] = self.shard[span]
            row[members] = (self.first[span] + sample) * self.rows_per_sample
        return shard, row

    def _forward(self, group: I64, epoch: I64, which: I64, within: I64) -> tuple[I64, I64]:
        if len(group) > 1 and int(self.group_count[group].sum()) > _MOST_SPANS:
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
        span = table.span[at]
        return self.shard[span], (self.first[span] + target - table.begin[at]) * self.rows_per_sample

    def locate(self, source: int, shard: I64, row: I64) -> Located:
        """The spans and samples that contain rows of a source; rows that belong to no sample are omitted."""
        low, end = source * self.streams, (source + 1) * self.streams
        first = int(self.group_first[low])
        spans = slice(first, first + int(self.group_count[low:end].sum()))
        sample, span = row // self.rows_per_sample, np.full_like(row, -1)
        for number in np.unique(shard).tolist():
            here = first + np.flatnonzero(self.shard[spans] == number)  # ascending by first sample
            mine = np.flatnonzero(shard == number)
            at = np.searchsorted(self.first[here], sample[mine], side="right") - 1
            mine, at = mine[at >= 0], at[at >= 0]
            inside = sample[mine] < self.first[here[at]] + self.length[here[at]]
            span[mine[inside]] = here[at[inside]]
        which = np.flatnonzero(span >= 0)
        span = span[which]
        stream = np.searchsorted(self.bounds[source], self.start[span], side="right") - 1
        return Located(which, stream.astype(np.int64), span, sample[which] - self.first[span])

    def counters(self, source: int, stream: int, span: int, samples: I64, epochs: int) -> I64:
        """The counters of samples of one span in each of the first epochs: int64 [epochs, samples]."""
        group = source * self.streams + stream
        step = max(1, _MOST_SPANS // max(1, int(self.group_count[group])))
        found = [np.zeros((0, len(samples)), np.int64)]
        for low in range(0, epochs, step):
            epoch = np.arange(low, min(low + step, epochs), dtype=np.int64)
            begin, window, size, key = self._place(group, span, epoch)
            place = begin[:, None] + samples - window[:, None]
            within = window[:, None] + invert(place, size[:, None], key[:, None])
            found.append(epoch[:, None] * self.samples[source, stream] + within)
        return np.concatenate(found)

    def _place(self, group: int, span: int, epoch: I64) -> tuple[I64, I64, I64, NDArray[np.uint64]]:
        """For one span in some epochs: its first sample, its window's first sample, size and key; each [epochs].

        The place of one span is the number of spans before it: this needs only their hashes sorted, which is ten times
        faster than the whole epoch's table.
        """
        first, count = int(self.group_first[group]), int(self.group_count[group])
        spans, length = np.arange(first, first + count), self.length[first : first + count]
        key = keyed_hash(self.key, group, epoch)
        hashes = keyed_hash(key[:, None], _SPAN, spans[None])
        mine = hashes[:, span - first, None]
        window = np.count_nonzero(hashes < mine, axis=1) // self._spans_per_window
        edges = np.stack(
            [window * self._spans_per_window, np.minimum((window + 1) * self._spans_per_window, count) - 1], axis=1
        )
        low, high = np.take_along_axis(np.sort(hashes, axis=1), edges, axis=1).T[:, :, None]
        before = np.where(hashes < low, length, 0).sum(axis=1)
        size = np.where((hashes >= low) & (hashes <= high), length, 0).sum(axis=1)
        begin = np.where(hashes < mine, length, 0).sum(axis=1)
        return begin, before, size, keyed_hash(key, _WINDOW, window)

    def _epoch(self, group: int, epoch: int) -> _Epoch:
        """One epoch's table, from the cache if it is there."""
        found = self._cache.pop((group, epoch), None)
        if found is None:
            both = self._epochs(np.array([group]), np.array([epoch]))
            last = (
                np.append(np.arange(self._spans_per_window, len(both.span), self._spans_per_window), len(both.span)) - 1
            )
            found = _Epoch(
                both.span, both.begin, both.end, both.end[last], both.window_key[last], self._spans_per_window
            )
            room = _CACHED_SPANS - len(found.span)
            while self._cache and sum(len(cached.span) for cached in self._cache.values()) > room:
                self._cache.popitem(last=False)
        self._cache[group, epoch] = found
        return found

    def _epochs(self, group: I64, epoch: I64) -> _Epochs:
        count = self.group_count[group]
        first = np.concatenate([[0], np.cumsum(count)])
        owner = np.repeat(np.arange(len(group)), count)
        number = np.arange(len(owner), dtype=np.int64)
        span = number + np.repeat(self.group_first[group] - first[:-1], count)
        key = keyed_hash(self.key, group, epoch)
        span = span[np.lexsort((keyed_hash(key[owner], _SPAN, span), owner))]
        end = np.cumsum(self.length[span])
        begin = end - self.length[span]
        window = (number - first[owner]) // self._spans_per_window
        window_first = first[owner] + window * self._spans_per_window
        window_last = np.minimum(window_first + self._spans_per_window, first[owner + 1]) - 1
        return _Epochs(
            first=first[:-1],
            span=span,
            begin=begin,
            end=end,
            window_begin=begin[window_first],
            window_size=end[window_last] - begin[window_first],
            window_key=keyed_hash(key[owner], _WINDOW, window),
        )


def _cut(
    rows: I64, source: int, rows_per_sample: int, streams: int, key: NDArray[np.uint64]
) -> tuple[I64, I64, I64, I64, I64]:
    """Cuts one source into spans: (group, shard, first sample in the shard, samples, first sample in the source)."""
    order = np.argsort(keyed_hash(key, _SHARD, source, np.arange(len(rows))), kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(rows[order] // rows_per_sample)]).astype(np.int64)
    bounds = np.arange(streams + 1, dtype=np.int64) * starts[-1] // streams
    cuts = np.sort(np.concatenate([starts, bounds]), kind="stable")  # a stable sort merges the two sorted runs
    begin, length = cuts[:-1], np.diff(cuts)
    begin, length = begin[length > 0], length[length > 0]
    shard = np.searchsorted(starts, begin, side="right") - 1
    stream = np.searchsorted(bounds, begin, side="right") - 1
    return source * streams + stream, order[shard], begin - starts[shard], length, begin


def _unique_pairs(group: I64, epoch: I64) -> tuple[tuple[I64, I64], I64]:
    """The distinct (group, epoch) pairs, and for each element the index of its pair. Avoids sorting where possible."""
    if not group.size:
        return (group, epoch), group
    low = int(epoch.min())
    width = int(epoch.max()) - low + 1
    code = group * width + (epoch - low)
    base = int(code.min())
    size = int(code.max()) - base + 1
    if size <= 8 * len(code) + 4096:
        seen = np.zeros(size, dtype=bool)
        seen[code - base] = True
        distinct = np.flatnonzero(seen) + base
        which = (np.cumsum(seen) - 1)[code - base]
    else:
        distinct, which = np.unique(code, return_inverse=True)
    return (distinct // width, distinct % width + low), which.astype(np.int64)


def _members(which: I64, count: int) -> list[slice | I64]:
    """Per number below `count`: its indexes in `which`, ascending."""
    if count < 2:
        return [slice(None)] * count
    narrow = which.astype(np.uint16 if count < 1 << 16 else np.int64)  # numpy radix-sorts 16-bit integers
    ordered = np.argsort(narrow, kind="stable")
    return np.split(ordered, np.cumsum(np.bincount(which, minlength=count))[:-1])  # type: ignore[return-value]
