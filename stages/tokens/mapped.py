"""All shards of a token stream as one array, so that a batch is one gather whatever files its rows are in.

numpy gathers rows from one array much faster than from many in a loop. So a range of addresses is reserved once and
divided into slots, each of whole rows and pages and large enough for any shard; a shard is mapped into a slot (`mmap`
with MAP_FIXED replaces the previous mapping), and row r of slot s is row `s * rows_per_slot + r` of one array. Slots
are reused: addresses, mappings and page tables stay bounded for any number of shards. No file stays open.

Only copies are returned: a view could show another shard after its slot is reused.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.store.errors import StoreError
from stages.tokens.fetch import Fetch
from stages.tokens.shard_file import ShardFile, ShardFormat, open_shard
from stages.tokens.table import ShardTable

I64 = NDArray[np.int64]

SLOTS = 1024
"""Shards mapped at once: more than a shuffle window for each data stream and source that a process reads. Linux allows
a process 65,530 mappings; page tables take 128 KiB for each shard of 64 MiB that was read through."""

_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value
_NO_ACCESS = 0


class SlotsFullError(Exception):
    """A request for rows of more shards than there are slots."""


class MappedShards:
    """The rows of all shards as one array, of which only some shards are mapped at a time.

    Args:
        table: the table of shards.
        form: tokens per row, and their type.
        fetch: returns a shard's local file.
        slots: maximum shards mapped at once.

    Raises:
        StoreError: the address space cannot be reserved.
    """

    def __init__(self, table: ShardTable, form: ShardFormat, fetch: Fetch, slots: int = SLOTS):
        self.table, self.form, self.fetch = table, form, fetch
        self._counts = counts = np.array([len(rows) for rows in table.rows], dtype=np.int64)
        self._first: I64 = np.concatenate([[0], np.cumsum(counts)])
        """Number of each source's first shard, in one numbering of the shards of all sources."""
        self.slots = max(1, min(slots, int(counts.sum())))
        self._slot_of = np.full(int(counts.sum()), -1, dtype=np.int64)
        self._shard_in = np.full(self.slots, -1, dtype=np.int64)
        self._rows_in = np.zeros(self.slots, dtype=np.int64)
        self._last_use = np.zeros(self.slots, dtype=np.int64)
        self._clock = 0
        self._lock = threading.Lock()
        self._space: _Space | None = None
        self._rows_per_slot = 0
        self._array = np.empty((0, form.sequence_length), dtype=form.dtype)

    def gather(self, source: I64, shard: I64, row: I64, rows_per_sample: int = 1) -> NDArray[Any]:
        """Samples that begin at these rows, copied: uint16 or uint32 [n, rows_per_sample * S]. Thread-safe.

        Raises:
            StoreError: a shard is missing or damaged.
            IndexError: rows outside a shard.
        """
        with self._lock:
            out = np.empty((len(source), rows_per_sample * self.form.sequence_length), dtype=self.form.dtype)
            for part in self._split_by_shards(source, shard, slice(0, len(source))):
                located = self.locate(source[part], shard[part], row[part], rows_per_sample)
                out[part] = self.take(located, rows_per_sample)
            return out

    def locate(self, source: I64, shard: I64, row: I64, rows_per_sample: int = 1) -> I64:
        """Maps the shards of some samples; returns their first rows' numbers for `take`, valid until the next `locate`.

        Raises:
            SlotsFullError: more shards than slots.
            StoreError: a shard is missing or damaged.
            IndexError: rows outside a shard.
        """
        if not len(source):
            return np.zeros(0, dtype=np.int64)
        if int(shard.min()) < 0 or bool((shard >= self._counts[source]).any()):
            raise IndexError("tokens: no such shard in its source")
        number = self._first[source] + shard
        slot = self._slot_of[number]
        self._clock += 1
        here = slot >= 0
        self._last_use[slot[here]] = self._clock
        if not here.all():
            self._map(np.unique(number[~here]))
            slot = self._slot_of[number]
        if int(row.min()) < 0 or bool((row + rows_per_sample > self._rows_in[slot]).any()):
            raise IndexError("tokens: rows outside their shard")
        return slot * self._rows_per_slot + row

    def take(self, located: I64, rows_per_sample: int = 1) -> NDArray[Any]:
        """The samples that `locate` found, copied: uint16 or uint32 [n, rows_per_sample * S]."""
        if rows_per_sample == 1:
            return self._array.take(located, axis=0)
        rows = located[:, None] + np.arange(rows_per_sample)
        return self._array.take(rows, axis=0).reshape(len(located), rows_per_sample * self.form.sequence_length)

    def _split_by_shards(self, source: I64, shard: I64, part: slice) -> Iterator[slice]:
        """Splits the samples of `part` so that each result is in at most `slots` shards."""
        if part.stop - part.start > self.slots:
            number = self._first[source[part]] + shard[part]
            if len(np.unique(number)) > self.slots:
                middle = (part.start + part.stop) // 2
                yield from self._split_by_shards(source, shard, slice(part.start, middle))
                yield from self._split_by_shards(source, shard, slice(middle, part.stop))
                return
        yield part

    def _map(self, numbers: I64) -> None:
        """Maps shards into slots that the current request does not use, the least recently used first."""
        free = np.flatnonzero(self._last_use < self._clock)
        if len(free) < len(numbers):
            raise SlotsFullError(f"tokens: rows of more than {self.slots} shards in one request")
        free = free[np.argsort(self._last_use[free], kind="stable")]
        for number, slot in zip(numbers.tolist(), free.tolist(), strict=False):
            source = int(np.searchsorted(self._first, number, side="right")) - 1
            shard = number - int(self._first[source])
            path = self.fetch(self.table.sources[source], shard)
            size = int(self.table.bytes[source][shard]) if self.table.bytes else None
            file = open_shard(path, self.form, int(self.table.rows[source][shard]), size)
            if self._space is None:
                self._space = _Space(self.slots, self._largest(), file.offset, self.form)
                self._rows_per_slot, self._array = self._space.rows_per_slot, np.asarray(self._space)
            if self._shard_in[slot] >= 0:
                self._slot_of[self._shard_in[slot]] = self._shard_in[slot] = -1
            self._space.put(slot, path, file)
            self._shard_in[slot], self._slot_of[number], self._rows_in[slot] = number, slot, len(file.tokens)
            self._last_use[slot] = self._clock

    def _largest(self) -> int:
        """An upper bound of the bytes of a shard's file."""
        if self.table.bytes:
            return max(int(sizes.max()) for sizes in self.table.bytes)
        return max(int(rows.max()) for rows in self.table.rows) * self.form.row_bytes + (1 << 16)


class _Space:
    """The reserved range of addresses, released when neither this nor an array over it is referenced any more.

    `np.asarray` of it is the array [slots * rows_per_slot, S].

    Args:
        size: bytes of the largest shard file.
        offset: where tokens begin in a file: the same in all files that one release of Arrow wrote. A shard with
            another offset is read into its slot instead of mapped.
    """

    def __init__(self, slots: int, size: int, offset: int, form: ShardFormat):
        unit = math.lcm(mmap.PAGESIZE, form.row_bytes)
        self.slot_bytes = -(-(size + offset) // unit) * unit
        self.rows_per_slot, self.offset, self.form = self.slot_bytes // form.row_bytes, offset, form
        total = slots * self.slot_bytes + unit  # the array begins `offset` into the range and ends after its last slot
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self.begin = _mmap(None, total, _NO_ACCESS, flags, -1)
        except OSError as error:
            raise StoreError(
                f"tokens: cannot reserve {total >> 30} GiB of addresses for shards: {error.strerror}; check the "
                "limit on address space (ulimit -v)"
            ) from error
        weakref.finalize(self, _munmap, self.begin, total)
        self.__array_interface__ = {
            "shape": (slots * self.rows_per_slot, form.sequence_length),
            "typestr": form.dtype.str,
            "data": (self.begin + offset, True),
            "version": 3,
        }

    def put(self, slot: int, path: Path, file: ShardFile) -> None:
        """Puts a shard into a slot, in place of its previous content."""
        address = self.begin + slot * self.slot_bytes
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        try:
            if file.offset != self.offset:
                _mmap(address, self.slot_bytes, mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1)
                ctypes.memmove(address + self.offset, file.tokens.ctypes.data, file.tokens.nbytes)
            else:
                _mmap(address, self.slot_bytes, _NO_ACCESS, anonymous, -1)
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    if os.fstat(descriptor).st_size != file.size:
                        raise StoreError(f"tokens: {path} changed while it was being opened")
                    _mmap(address, file.size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise StoreError(f"tokens: cannot map {path}: {error.strerror}; check sysctl vm.max_map_count") from error


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _mmap(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found = _libc.mmap(address, size, protection, flags, descriptor, 0)
    if found is None or found == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def _munmap(address: int, size: int) -> None:
    _libc.munmap(address, size)
