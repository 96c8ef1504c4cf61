"""Finds boilerplate blocks: counts over a whole corpus in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import EditConfig
from stages.corpus.kernels.blocks import count_blocks, frequent_blocks

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

Batches = Callable[[], Iterator[tuple[str, Hashes, Counts, Hashes]]]
"""Iterates over the kept documents, a batch at a time, from the beginning at each call: source, `edge_blocks` of
n documents (uint64[k], int64[n + 1]), hash of each document's group (uint64[n])."""

_END = 1 << 64
_ENTRY_BYTES = 128
"""Memory for an entry while entries are sorted: 16 bytes itself, its copies and NumPy's order of them."""
_MOST = 255


class _Entries(NamedTuple):
    """Counts of the blocks in a range of hashes."""

    blocks: Hashes
    groups: Hashes
    """Sorted pairs of a block and a group that it occurs in; at most as many for each block as the decision needs."""
    counted: dict[str, tuple[Hashes, Counts]]
    """By source: its blocks, sorted, and the number of documents with each."""

    def __len__(self) -> int:
        return len(self.blocks) + sum(len(blocks) for blocks, _ in self.counted.values())

    def below(self, end: int) -> _Entries:
        """Those of blocks below `end`."""
        stop = _place(self.blocks, end)
        counted = {}
        for source, (blocks, counts) in self.counted.items():
            kept = _place(blocks, end)
            counted[source] = (blocks[:kept].copy(), counts[:kept].copy())
        return _Entries(self.blocks[:stop].copy(), self.groups[:stop].copy(), counted)

    def middle(self) -> int:
        """A block that is larger than about half of the entries."""
        every = np.concatenate([self.blocks, *(blocks for blocks, _ in self.counted.values())])
        return int(np.partition(every, len(every) // 2)[len(every) // 2])


class BlockCounts:
    """Finds the boilerplate of each source.

    A block is boilerplate of a source if it occurs in documents of enough different groups (of the whole corpus) and in
    a large enough share of the source's documents. Groups count, not documents: a heading that all pages about one
    disease begin with is not boilerplate.

    A first round counts blocks in a table of 8-bit counters, indexed by a part of the hash, so that a counter is never
    too low; only blocks with a high enough counter are counted exactly. If these exceed the memory, exact counts take
    as many rounds as needed, each over a range of the hash.

    Args:
        sources: names of all sources.
        memory_bytes: memory to use besides one batch and the result.
    """

    def __init__(self, sources: Iterable[str], config: EditConfig, memory_bytes: int):
        self._sources = list(sources)
        self._config = config
        self._counters = 1 << max(10, (memory_bytes // 8).bit_length() - 1)
        self._limit = max(64, memory_bytes // 2 // _ENTRY_BYTES)

    def boilerplate(self, batches: Batches) -> dict[str, Hashes]:
        """The boilerplate of each source: uint64[k, 2], sorted blocks, each with the smallest group that has it.

        Raises:
            MemoryError: a single block has more entries than fit into `memory_bytes`.
        """
        counters = np.zeros(self._counters, np.uint8)
        documents = dict.fromkeys(self._sources, 0)
        for source, blocks, starts, _ in batches():
            documents[source] += len(starts) - 1
            count_blocks(counters, blocks)
        enough = {source: self._config.boilerplate_minimum_fraction * n for source, n in documents.items() if n}
        least = max(self._config.boilerplate_minimum_groups, min(enough.values(), default=0))
        found: dict[str, list[Hashes]] = {source: [] for source in self._sources}
        begin = 0
        while begin < _END:
            entries, end = self._round(batches, counters, min(_MOST, int(np.ceil(least))), begin)
            for source, common in self._common(entries, enough).items():
                found[source].append(common)
            begin = end
        return {source: np.concatenate([np.empty((0, 2), np.uint64), *parts]) for source, parts in found.items()}

    def _round(self, batches: Batches, counters: NDArray[np.uint8], least: int, begin: int) -> tuple[_Entries, int]:
        """Exact entries of the blocks from `begin` on, and the end of their range, which memory limits."""
        end = _END
        entries = self._merge([])
        pending: list[tuple[str, Hashes, Hashes]] = []
        count = 0
        for source, blocks, starts, groups in batches():
            chosen = frequent_blocks(counters, blocks, least)
            chosen &= blocks >= np.uint64(begin)
            chosen &= blocks <= np.uint64(end - 1)
            if not chosen.any():
                continue
            pending.append((source, blocks[chosen], np.repeat(groups, np.diff(starts))[chosen]))
            count += 2 * len(pending[-1][1])
            if count > self._limit // 2:
                entries, end = self._cut(self._merge(pending, entries), begin, end)
                pending, count = [], 0
        return self._cut(self._merge(pending, entries), begin, end)

    def _cut(self, entries: _Entries, begin: int, end: int) -> tuple[_Entries, int]:
        """Shortens the range, leaving the upper part to a later round, while there are too many entries."""
        while len(entries) > self._limit // 2:
            middle = entries.middle()
            if middle <= begin:
                middle = begin + 1
                if len(entries.below(middle)) == len(entries):
                    raise MemoryError(
                        "corpus: one boilerplate block has more entries than memory_megabytes allows; raise it"
                    )
            end = middle
            entries = entries.below(end)
        return entries, end

    def _merge(self, pending: list[tuple[str, Hashes, Hashes]], old: _Entries | None = None) -> _Entries:
        """Entries with the blocks of more documents added: (source, blocks, the group of each)."""
        none = np.empty(0, np.uint64)
        old = old or _Entries(none, none, {})
        blocks = np.concatenate([old.blocks, *(blocks for _, blocks, _ in pending)])
        groups = np.concatenate([old.groups, *(groups for _, _, groups in pending)])
        order = np.lexsort((groups, blocks))
        blocks, groups = blocks[order], groups[order]
        new = np.ones(len(blocks), bool)
        new[1:] = (blocks[1:] != blocks[:-1]) | (groups[1:] != groups[:-1])
        blocks, groups = blocks[new], groups[new]
        # More groups than needed do not change the decision, so a block of all documents takes no more memory.
        rank = np.arange(len(blocks)) - np.searchsorted(blocks, blocks)
        few = rank < self._config.boilerplate_minimum_groups
        counted = dict(old.counted)
        for source in dict.fromkeys(source for source, _, _ in pending):
            known, counts = counted.get(source, (none, np.empty(0, np.int64)))
            more = np.concatenate([found for name, found, _ in pending if name == source])
            values, places = np.unique(np.concatenate([known, more]), return_inverse=True)
            total = np.zeros(len(values), np.int64)
            np.add.at(total, places, np.concatenate([counts, np.ones(len(more), np.int64)]))
            counted[source] = (values, total)
        return _Entries(blocks[few], groups[few], counted)

    def _common(self, entries: _Entries, enough: dict[str, float]) -> dict[str, Hashes]:
        """The boilerplate among the blocks of one round."""
        blocks, first, groups = np.unique(entries.blocks, return_index=True, return_counts=True)
        enough_groups = groups >= self._config.boilerplate_minimum_groups
        common = np.stack([blocks, entries.groups[first]], axis=1)[enough_groups]
        return {
            source: common[np.isin(common[:, 0], known[counts >= enough[source]], assume_unique=True)]
            for source, (known, counts) in entries.counted.items()
        }


def _place(blocks: Hashes, end: int) -> int:
    """Number of sorted blocks below `end`."""
    return len(blocks) if end >= _END else int(np.searchsorted(blocks, np.uint64(end)))
