"""A Markov model of bytes: the compression that short contexts alone reach, a baseline for language models.

The probability of a byte given the k before it in its document mixes counts of all orders up to k, as the hierarchical
Dirichlet model does (MacKay and Peto 1995): for a context h with n(h) occurrences in training,

    p(c | h) = (n(h c) + a p(c | h')) / (n(h) + a),

h' being h without its oldest byte, and below order 0 all 256 bytes equally likely. The strength a is chosen for each
order, from a few values, to maximize the likelihood of a tenth of the training documents under the counts of the
others. So there is nothing to tune, and an uninformative order does almost no harm. Positions before a document's
beginning have a symbol of their own, so that contexts never cross documents.

The bytes that occur in training are renumbered, and a byte with its context is one uint64: so k is limited, depending
on the number of distinct bytes: 21 for ACGTN, 8 or 9 for English. The byte is the most significant digit, followed by
its context from the newest byte to the oldest: codes sorted at the highest order are sorted at all orders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.evaluation.heldout import HeldoutDocument, training_rows
from stages.evaluation.token_text import TokenText
from stages.store import ConfigError

BEFORE = 256
"""Symbol of a position before a document's beginning (0 to 255 are bytes)."""

STRENGTHS = tuple(4.0**power for power in range(-2, 8))
"""Candidate strengths."""

VALIDATION_EVERY = 10
"""One of this many training documents is used to choose the strengths."""

_TOKENS_PER_GROUP = 1 << 20
"""Tokens that are scored together: a few hundred megabytes of memory with four bytes per token."""

Symbols = NDArray[np.uint16]
Codes = NDArray[np.uint64]


@dataclass(frozen=True)
class _Order:
    """Counts of one order: of contexts, and of contexts with their next byte; both sorted by code."""

    grams: Codes
    """Codes of bytes with their contexts, [g]."""
    counts: NDArray[np.int64]
    """Occurrences of each, [g]."""
    contexts: Codes
    """[h]"""
    totals: NDArray[np.int64]
    """n(h), [h]."""

    def look_up(self, grams: Codes, contexts: Codes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """n(h c) and n(h) of n grams, both int64 [n]."""
        return _values(self.grams, self.counts, grams), _values(self.contexts, self.totals, contexts)


class MarkovModel:
    """Counts of training documents for scoring others; see `fit`."""

    def __init__(self, numbers: Codes, radix: int, orders: list[_Order], strengths: list[float]):
        self.order = len(orders) - 1
        self.strengths = strengths
        """Strength of each order, from 0 on."""
        self._numbers, self._radix, self._orders = numbers, radix, orders

    @classmethod
    def fit(cls, counted: Symbols, validation: Symbols, order: int) -> MarkovModel:
        """Counts documents.

        Args:
            counted: [n], bytes, with `order` times `BEFORE` before each document.
            validation: [m], other documents in the same form, for choosing strengths; then they are counted too.
            order: k, bytes of context; 0: none.

        Raises:
            ConfigError: the order is too high for this many distinct bytes.
        """
        present = np.flatnonzero(np.bincount(np.concatenate([counted, validation]), minlength=BEFORE + 1)[:BEFORE])
        # 0: before the beginning; 1: a byte that does not occur in training.
        numbers = np.ones(BEFORE + 1, np.uint64)
        numbers[present], numbers[BEFORE] = np.arange(2, len(present) + 2), 0
        radix = len(present) + 2
        if radix ** (order + 1) > 1 << 64:
            most = next(k for k in range(order, -1, -1) if radix ** (k + 1) <= 1 << 64)
            raise ConfigError(
                f"evaluation.markov_order: {order} is too high for documents of {len(present)} distinct bytes; the "
                f"maximum is {most}"
            )
        first, second = (_codes(numbers[part], part, order, radix) for part in (counted, validation))
        strengths = _strengths(_orders(first, order, radix), *np.unique(second, return_counts=True), radix)
        return cls(numbers, radix, _orders(np.concatenate([first, second]), order, radix), strengths)

    def nll(self, symbols: Symbols) -> NDArray[np.float64]:
        """Cost of each byte in nats, float64 [bytes], without entries for `BEFORE`.

        Args:
            symbols: [n], as in `fit`.
        """
        codes = _codes(self._numbers[symbols], symbols, self.order, self._radix)
        probability = np.full(len(codes), 1 / 256)
        for k, (counted, strength) in enumerate(zip(self._orders, self.strengths, strict=True)):
            counts, totals = counted.look_up(*_reduce_order(codes, k, self.order, self._radix))
            probability = _mix(counts, totals, strength, probability)
        return -np.log(probability)


def heldout_costs(
    folder: Path, documents: Sequence[HeldoutDocument], order: int, limit: int | None, bytes_per_token: float
) -> list[float]:
    """Costs of held-out documents under a model of the training documents, in nats, [n].

    The counted bytes are those of a language model's bits-per-byte: all except those of a document's first token, which
    are context.

    Args:
        folder: a tokens artifact's local folder.
        limit: approximate bytes of training text to count, distributed over all shards; None: all.
        bytes_per_token: average in the training text.

    Raises:
        ConfigError: see `MarkovModel.fit`.
    """
    from stages.tokens.reader import TokenReader

    reader = TokenReader(folder)
    before = np.full(order, BEFORE, np.uint16)
    text = TokenText.load(folder, reader.eos_id, at_end=before)
    stream = [before]
    for continues, tokens in training_rows(reader, None if limit is None else round(limit / bytes_per_token)):
        stream += [text.of(tokens)] if continues else [before, text.of(tokens)]
    model = MarkovModel.fit(*_split_validation(np.concatenate(stream), order), order)
    costs: list[float] = []
    for group in _groups(documents):
        found = [text.of(document.tokens) for document in group]
        nll = model.nll(np.concatenate([symbols for one in found for symbols in (before, one)]))
        ends = np.cumsum([len(one) for one in found])
        starts = ends - [
            len(one) - len(text.of(document.tokens[:1])) for one, document in zip(found, group, strict=True)
        ]
        costs += [float(nll[start:end].sum()) for start, end in zip(starts, ends, strict=True)]
    return costs


def _groups(documents: Sequence[HeldoutDocument]) -> Iterator[Sequence[HeldoutDocument]]:
    """Documents that are scored together."""
    begin = size = 0
    for number, document in enumerate(documents):
        if size and size + len(document.tokens) > _TOKENS_PER_GROUP:
            yield documents[begin:number]
            begin, size = number, 0
        size += len(document.tokens)
    if begin < len(documents):
        yield documents[begin:]


def _split_validation(symbols: Symbols, order: int) -> tuple[Symbols, Symbols]:
    """The stream without every tenth document, and these; with fewer than ten documents the last tenth of the bytes."""
    begins = symbols == BEFORE
    begins[1:] &= symbols[:-1] != BEFORE
    document = np.cumsum(begins)
    if len(symbols) and document[-1] >= VALIDATION_EVERY:
        chosen = document % VALIDATION_EVERY == 0
        return symbols[~chosen], symbols[chosen]
    cut = len(symbols) - len(symbols) // VALIDATION_EVERY
    return symbols[:cut], np.concatenate([np.full(order, BEFORE, np.uint16), symbols[cut:]])


def _strengths(orders: Sequence[_Order], grams: Codes, counts: NDArray[np.int64], radix: int) -> list[float]:
    """For each order the strength that maximizes the likelihood of other text, given as distinct grams and counts."""
    chosen: list[float] = []
    probability = np.full(len(grams), 1 / 256)
    for k, order in enumerate(orders):
        found = order.look_up(*_reduce_order(grams, k, len(orders) - 1, radix))
        mixtures = {strength: _mix(*found, strength, probability) for strength in STRENGTHS}
        chosen.append(max(mixtures, key=lambda strength: float(counts @ np.log(mixtures[strength]))))
        probability = mixtures[chosen[-1]]
    return chosen


def _mix(
    counts: NDArray[np.int64], totals: NDArray[np.int64], strength: float, below: NDArray[np.float64]
) -> NDArray[np.float64]:
    mixed: NDArray[np.float64] = (counts + strength * below) / (totals + strength)
    return mixed


def _codes(numbers: Codes, symbols: Symbols, order: int, radix: int) -> Codes:
    """Each byte and the `order` symbols before it as a number in base `radix`, the byte first: uint64 [bytes]."""
    codes = numbers[order:].copy()
    for lag in range(1, order + 1):
        codes *= np.uint64(radix)
        codes += numbers[order - lag : len(numbers) - lag]
    return codes[symbols[order:] != BEFORE]


def _reduce_order(codes: Codes, k: int, order: int, radix: int) -> tuple[Codes, Codes]:
    """Converts codes of a byte and `order` symbols to order k: (grams, with the byte; contexts, without it)."""
    left_out = np.uint64(radix ** (order - k))
    return codes // left_out, codes % np.uint64(radix**order) // left_out


def _orders(codes: Codes, order: int, radix: int) -> list[_Order]:
    """Counts of all orders, from 0 on."""
    grams, counts = np.unique(codes, return_counts=True)
    contexts, totals = np.unique(codes % np.uint64(radix**order), return_counts=True)
    found = [_Order(grams, counts, contexts, totals)]
    for _ in range(order):
        grams, counts = _sum_counts(grams // np.uint64(radix), counts)
        contexts, totals = _sum_counts(contexts // np.uint64(radix), totals)
        found.append(_Order(grams, counts, contexts, totals))
    return found[::-1]


def _sum_counts(codes: Codes, counts: NDArray[np.int64]) -> tuple[Codes, NDArray[np.int64]]:
    """The distinct codes of a sorted array, and the sum of each one's counts."""
    starts = np.flatnonzero(np.diff(codes, prepend=~codes[:1]))
    return codes[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def _values(table: Codes, values: NDArray[np.int64], codes: Codes) -> NDArray[np.int64]:
    """The value of each code in a sorted table, 0 if it is missing."""
    if not len(table):
        return np.zeros(len(codes), np.int64)
    places = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    return np.where(table[places] == codes, values[places], 0)
