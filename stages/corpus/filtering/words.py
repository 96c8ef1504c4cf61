"""Texts as numbered pieces with their facts: the memory that all word rules share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from numpy.typing import NDArray

from stages.corpus.filtering.english import special_cases, split_pieces
from stages.corpus.kernels.character_classes import character_classes
from stages.corpus.kernels.piece_facts import COLUMNS, state_facts
from stages.corpus.kernels.pieces import KNOWN, NEW, PIECES, grown, hash_bytes, walk_pieces
from stages.corpus.kernels.plain_pieces import plain_tokens

Places = NDArray[np.int64]

_MOST_PIECES = 1 << 20
"""Known pieces from which on all is forgotten: text that never repeats must not fill the memory."""
_MOST_TOKENS = 1 << 23
_NEW_AT_ONCE = 1 << 14
_SCRATCH = 1 << 22
"""Pieces for which memory is kept from one batch to the next."""
_ASKED_AT_ONCE = 1000
"""Pieces that spaCy gets in one go."""


def read_only(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes, not to be written to, as texts are: kernels are compiled once for these and once for others."""
    data = data.view()
    data.flags.writeable = False
    return data


@dataclass(frozen=True)
class Pieces:
    """n texts as pieces, see `walk_pieces`. Numbers hold until the splitter's next call."""

    firsts: Places
    pieces: NDArray[np.int32]
    starts: Places
    gaps: NDArray[np.int32]


class Splitter:
    """Splits texts into pieces and remembers what spaCy makes of each piece, `facts` and `tokens`."""

    def __init__(self, most_pieces: int = _MOST_PIECES) -> None:
        self.most_pieces = most_pieces
        self.classes = character_classes()
        encoded = [np.frombuffer(word.encode(), np.uint8) for word in STOP_WORDS]
        self._stop_words = np.array([hash_bytes(word, 0, len(word)) for word in encoded], np.uint64)
        self._scratch: Pieces | None = None
        self._forget()

    def _forget(self) -> None:
        self._table = np.zeros((1 << 16, 2), np.uint64)
        self._known = 0
        self._token = 0
        self.facts = np.zeros((1 << 15, COLUMNS), np.int32)
        self.tokens = np.zeros((1 << 16, 4), np.uint64)

    def split(self, data: NDArray[np.uint8], begins: Places, ends: Places) -> Pieces:
        """Pieces of the texts `data[begins[i]:ends[i]]`. They lie in memory that the next call uses again."""
        data = read_only(data)
        if self._known > self.most_pieces or self._token > _MOST_TOKENS:
            self._forget()
        n = len(begins)
        found = self._room(n, int((ends - begins).sum()) // 2 + n + 1)
        state = np.array([0, -1, 0, 0, self._known], np.int64)
        new_starts, new_ends = np.empty(_NEW_AT_ONCE, np.int64), np.empty(_NEW_AT_ONCE, np.int64)
        while True:
            done = walk_pieces(
                data, begins, ends, self._table, len(self._table) // 2, state, found.firsts, found.pieces,
                found.starts, found.gaps, new_starts, new_ends,
            )  # fmt: skip
            new = int(state[NEW])
            if new:
                self._enter(data, new_starts[:new], new_ends[:new])
            state[NEW], state[KNOWN] = 0, self._known
            if done:
                break
            if self._known * 2 >= len(self._table):
                self._grow()
        count = int(state[PIECES])
        return Pieces(found.firsts, found.pieces[:count], found.starts[:count], found.gaps[: count + n])

    def _room(self, n: int, most: int) -> Pieces:
        """Room for n texts with that many pieces; most of it is never touched, for pieces have six bytes, not two.

        It is used again and again: fresh memory costs a page fault for every 4 kB, half of the walk's time.
        """
        if not self._scratch or len(self._scratch.pieces) < most or len(self._scratch.firsts) < n + 1:
            n_most = max(n, 1 << 10)
            self._scratch = Pieces(
                np.zeros(n_most + 1, np.int64), np.empty(most, np.int32), np.empty(most, np.int64),
                np.empty(most + n_most, np.int32),
            )  # fmt: skip
        scratch = self._scratch
        if most > _SCRATCH:
            self._scratch = None
        return Pieces(scratch.firsts[: n + 1], scratch.pieces, scratch.starts, scratch.gaps)

    def _grow(self) -> None:
        larger = np.zeros((len(self._table) * 2, 2), np.uint64)
        grown(self._table, larger)
        self._table = larger

    def _enter(self, data: NDArray[np.uint8], begins: Places, ends: Places) -> None:
        rows = np.arange(self._known, self._known + len(begins))
        self._known += len(begins)
        while len(self.facts) < self._known:
            self.facts = np.concatenate([self.facts, np.zeros_like(self.facts)])
        counts = np.zeros(len(begins), np.int32)
        sizes = np.empty(int((ends - begins).sum()), np.int32)
        written = plain_tokens(data, begins, ends, special_cases(), self.classes, counts, sizes)
        plain = counts > 0
        self._state(data, begins[plain], ends[plain], rows[plain], counts[plain], sizes[:written])
        hard = np.flatnonzero(~plain)
        for first in range(0, len(hard), _ASKED_AT_ONCE):
            asked = hard[first : first + _ASKED_AT_ONCE]
            pieces = [data[begins[i] : ends[i]].tobytes() for i in asked]
            counts, sizes = split_pieces(pieces)
            last = np.cumsum([len(piece) for piece in pieces])
            joined = np.frombuffer(b"".join(pieces), np.uint8)
            self._state(joined, np.concatenate([[0], last[:-1]]), last, rows[asked], counts, sizes)

    def _state(
        self, data: NDArray[np.uint8], begins: Places, ends: Places, rows: Places, counts: NDArray[np.int32],
        sizes: NDArray[np.int32],
    ) -> None:  # fmt: skip
        while self._token + len(sizes) > len(self.tokens):
            self.tokens = np.concatenate([self.tokens, np.zeros_like(self.tokens)])
        self._token = state_facts(
            data,
            begins,
            ends,
            rows,
            counts,
            sizes,
            self.classes,
            self._stop_words,
            self.facts,
            self.tokens,
            self._token,
        )
