"""Splits texts into word ids and remembers the facts of each word; all word rules share this."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from numpy.typing import NDArray

from stages.corpus.filtering.english import special_cases, tokenize_words
from stages.corpus.kernels.character_classes import character_classes
from stages.corpus.kernels.plain_tokens import plain_tokens
from stages.corpus.kernels.word_facts import COLUMNS, write_facts
from stages.corpus.kernels.word_split import KNOWN, NEW, WORDS, copy_table, hash_bytes, split_words

Places = NDArray[np.int64]

_MOST_WORDS = 1 << 20
"""Number of known words above which all are forgotten: text that never repeats must not fill the memory."""
_MOST_TOKENS = 1 << 23
_NEW_AT_ONCE = 1 << 14
_SCRATCH_WORDS = 1 << 22
"""Most words for which buffers are kept from one batch to the next."""
_SPACY_BATCH = 1000
"""Words that spaCy tokenizes at a time."""


def read_only(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A read-only view of the same bytes: kernels are compiled separately for read-only arrays, which texts are."""
    data = data.view()
    data.flags.writeable = False
    return data


@dataclass(frozen=True)
class Words:
    """n texts as word ids, see `split_words`. Valid until the splitter's next call."""

    firsts: Places
    ids: NDArray[np.int32]
    starts: Places
    gaps: NDArray[np.int32]


class Splitter:
    """Splits texts into words and remembers `facts` and `tokens` of each word, as spaCy tokenizes it."""

    def __init__(self, most_words: int = _MOST_WORDS) -> None:
        self.most_words = most_words
        self.classes = character_classes()
        encoded = [np.frombuffer(word.encode(), np.uint8) for word in STOP_WORDS]
        self._stop_words = np.array([hash_bytes(word, 0, len(word)) for word in encoded], np.uint64)
        self._scratch: Words | None = None
        self._forget()

    def _forget(self) -> None:
        self._table = np.zeros((1 << 16, 2), np.uint64)
        self._known = 0
        self._token = 0
        self.facts = np.zeros((1 << 15, COLUMNS), np.int32)
        self.tokens = np.zeros((1 << 16, 4), np.uint64)

    def split(self, data: NDArray[np.uint8], begins: Places, ends: Places) -> Words:
        """Words of the texts `data[begins[i]:ends[i]]`, in buffers that the next call overwrites."""
        data = read_only(data)
        if self._known > self.most_words or self._token > _MOST_TOKENS:
            self._forget()
        n = len(begins)
        buffers = self._buffers(n, int((ends - begins).sum()) // 2 + n + 1)
        state = np.array([0, -1, 0, 0, self._known], np.int64)
        new_starts, new_ends = np.empty(_NEW_AT_ONCE, np.int64), np.empty(_NEW_AT_ONCE, np.int64)
        while True:
            done = split_words(
                data, begins, ends, self._table, len(self._table) // 2, state, buffers.firsts, buffers.ids,
                buffers.starts, buffers.gaps, new_starts, new_ends,
            )  # fmt: skip
            new = int(state[NEW])
            if new:
                self._add_words(data, new_starts[:new], new_ends[:new])
            state[NEW], state[KNOWN] = 0, self._known
            if done:
                break
            if self._known * 2 >= len(self._table):
                self._grow()
        count = int(state[WORDS])
        return Words(buffers.firsts, buffers.ids[:count], buffers.starts[:count], buffers.gaps[: count + n])

    def _buffers(self, n: int, most: int) -> Words:
        """Buffers for n texts of at most so many words; most stay untouched: words have about six bytes, not two.

        They are reused: new memory costs a page fault for every 4 kB, half of the time of a split.
        """
        if not self._scratch or len(self._scratch.ids) < most or len(self._scratch.firsts) < n + 1:
            n_most = max(n, 1 << 10)
            self._scratch = Words(
                np.zeros(n_most + 1, np.int64), np.empty(most, np.int32), np.empty(most, np.int64),
                np.empty(most + n_most, np.int32),
            )  # fmt: skip
        scratch = self._scratch
        if most > _SCRATCH_WORDS:
            self._scratch = None
        return Words(scratch.firsts[: n + 1], scratch.ids, scratch.starts, scratch.gaps)

    def _grow(self) -> None:
        larger = np.zeros((len(self._table) * 2, 2), np.uint64)
        copy_table(self._table, larger)
        self._table = larger

    def _add_words(self, data: NDArray[np.uint8], begins: Places, ends: Places) -> None:
        rows = np.arange(self._known, self._known + len(begins))
        self._known += len(begins)
        while len(self.facts) < self._known:
            self.facts = np.concatenate([self.facts, np.zeros_like(self.facts)])
        counts = np.zeros(len(begins), np.int32)
        sizes = np.empty(int((ends - begins).sum()), np.int32)
        written = plain_tokens(data, begins, ends, special_cases(), self.classes, counts, sizes)
        plain = counts > 0
        self._write_facts(data, begins[plain], ends[plain], rows[plain], counts[plain], sizes[:written])
        difficult = np.flatnonzero(~plain)
        for first in range(0, len(difficult), _SPACY_BATCH):
            asked = difficult[first : first + _SPACY_BATCH]
            words = [data[begins[i] : ends[i]].tobytes() for i in asked]
            counts, sizes = tokenize_words(words)
            last = np.cumsum([len(word) for word in words])
            joined = np.frombuffer(b"".join(words), np.uint8)
            self._write_facts(joined, np.concatenate([[0], last[:-1]]), last, rows[asked], counts, sizes)

    def _write_facts(
        self, data: NDArray[np.uint8], begins: Places, ends: Places, rows: Places, counts: NDArray[np.int32],
        sizes: NDArray[np.int32],
    ) -> None:  # fmt: skip
        while self._token + len(sizes) > len(self.tokens):
            self.tokens = np.concatenate([self.tokens, np.zeros_like(self.tokens)])
        self._token = write_facts(
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
