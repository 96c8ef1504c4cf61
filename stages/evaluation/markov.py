"""A Markov model of bytes: what compression short contexts alone reach, the baseline that a language model must beat.

The probability of a byte given the k before it in its document mixes counts of all orders up to k, by Witten and Bell's
method C (Witten and Bell 1991, "The zero-frequency problem"; as an interpolation in Chen and Goodman 1998, section
2.4): for a context h with n(h) occurrences in training, followed by t(h) different bytes,

    p(c | h) = (n(h c) + t(h) p(c | h')) / (n(h) + t(h)),

h' being h without its oldest byte, and below order 0 all 256 bytes equally likely. There is nothing to tune. Places
before a document's beginning count as a byte of their own, so that contexts never cross documents.

Bytes are numbered anew, those that training has, and a context with its byte is one uint64: so k has a bound, which
depends on how many different bytes there are: 26 for DNA, 8 or 9 for English.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.artifact import ConfigError
from stages.evaluation.heldout import HeldoutDocument, training_rows
from stages.evaluation.token_text import TokenText

BEFORE = 256
"""Stands for a place before a document's beginning, in arrays of symbols (0 to 255 are bytes)."""

_AT_ONCE = 1 << 20
"""Tokens that are scored together: a few hundred megabytes of work space where a token has four bytes."""

Symbols = NDArray[np.uint16]
Codes = NDArray[np.uint64]


@dataclass(frozen=True)
class _Order:
    """Counts of one order: of contexts, and of contexts with their next byte; both sorted by code."""

    grams: Codes
    """A context and the byte after it, [g]."""
    counts: NDArray[np.int64]
    """How often each occurs, [g]."""
    contexts: Codes
    """[h]"""
    totals: NDArray[np.int64]
    """n(h), [h]."""
    kinds: NDArray[np.int64]
    """t(h), [h]."""


class MarkovModel:
    """Counts of a training stream, ready to score documents; see `fit`."""

    def __init__(self, order: int, numbers: Codes, radix: int, orders: list[_Order]):
        self.order = order
        self._numbers, self._radix, self._orders = numbers, np.uint64(radix), orders

    @classmethod
    def fit(cls, symbols: Symbols, order: int) -> MarkovModel:
        """Counts a stream of documents.

        Args:
            symbols: [n], bytes, with `order` times `BEFORE` in front of each document.
            order: k, bytes of context; 0 counts bytes alone.

        Raises:
            ConfigError: the order is too high for so many different bytes.
        """
        there = np.flatnonzero(np.bincount(symbols, minlength=BEFORE + 1)[:BEFORE])
        # 0 is before the beginning, 1 a byte that training does not have.
        numbers = np.ones(BEFORE + 1, np.uint64)
        numbers[there], numbers[BEFORE] = np.arange(2, len(there) + 2), 0
        radix = len(there) + 2
        if radix ** (order + 1) > 1 << 64:
            most = next(k for k in range(order, -1, -1) if radix ** (k + 1) <= 1 << 64)
            raise ConfigError(
                f"evaluation.markov_order: {order} is too high for documents of {len(there)} different bytes; "
                f"at most {most}"
            )
        grams, counts = np.unique(_codes(numbers[symbols], symbols, order, np.uint64(radix)), return_counts=True)
        orders = [_order(grams, counts, radix)]
        for k in range(order - 1, -1, -1):
            grams, counts = _added_up(grams % np.uint64(radix ** (k + 1)), counts)
            orders.append(_order(grams, counts, radix))
        return cls(order, numbers, radix, orders[::-1])

    def nll(self, symbols: Symbols) -> NDArray[np.float64]:
        """Cost of each byte in nats, float64 [bytes]; `BEFORE` costs nothing and is left out.

        Args:
            symbols: [n], as in `fit`.
        """
        codes = _codes(self._numbers[symbols], symbols, self.order, self._radix)
        probability = np.full(len(codes), 1 / 256)
        for k, counted in enumerate(self._orders):
            if not len(counted.grams):  # training has no byte at all
                continue
            grams = codes % self._radix ** np.uint64(k + 1) if k < self.order else codes
            context = _found(counted.contexts, grams // self._radix)
            seen = context >= 0
            gram = _found(counted.grams, grams)
            count = np.where(gram >= 0, counted.counts[gram], 0)[seen]
            totals, kinds = counted.totals[context[seen]], counted.kinds[context[seen]]
            probability[seen] = (count + kinds * probability[seen]) / (totals + kinds)
        return -np.log(probability)


def heldout_costs(
    folder: Path, documents: Sequence[HeldoutDocument], order: int, limit: int | None, bytes_per_token: float
) -> list[float]:
    """What held-out documents cost under the counts of the training documents, in nats, [n].

    Counted are the bytes that a language model is measured on: all but those of a document's first token, which are
    context here.

    Args:
        folder: a tokens artifact's local folder.
        limit: bytes of training text to count, about, spread over all shards; None: all.
        bytes_per_token: of training text, on average.

    Raises:
        ConfigError: see `MarkovModel.fit`.
    """
    from stages.tokens.reader import TokenReader

    reader = TokenReader(folder)
    before = np.full(order, BEFORE, np.uint16)
    text = TokenText.load(folder, reader.eos_id, at_end=before)
    stream = [before]
    for goes_on, tokens in training_rows(reader, None if limit is None else round(limit / bytes_per_token)):
        stream += [text.of(tokens)] if goes_on else [before, text.of(tokens)]
    model = MarkovModel.fit(np.concatenate(stream), order)
    costs: list[float] = []
    for group in _groups(documents):
        found = [text.of(document.tokens) for document in group]
        nll = model.nll(np.concatenate([piece for one in found for piece in (before, one)]))
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
        if size and size + len(document.tokens) > _AT_ONCE:
            yield documents[begin:number]
            begin, size = number, 0
        size += len(document.tokens)
    if begin < len(documents):
        yield documents[begin:]


def _codes(numbers: Codes, symbols: Symbols, order: int, radix: np.uint64) -> Codes:
    """For each byte itself and the `order` symbols before it as one number, the oldest leading: uint64 [bytes]."""
    codes = np.zeros(max(0, len(numbers) - order), np.uint64)
    for lag in range(order + 1):
        codes *= radix
        codes += numbers[lag : lag + len(codes)]
    return codes[symbols[order:] != BEFORE]


def _added_up(grams: Codes, counts: NDArray[np.int64]) -> tuple[Codes, NDArray[np.int64]]:
    """Different grams, sorted, and the sum of the counts of each."""
    order = np.argsort(grams, kind="stable")
    grams, counts = grams[order], counts[order]
    starts = _starts(grams)
    return grams[starts], np.add.reduceat(counts, starts) if len(starts) else counts


def _order(grams: Codes, counts: NDArray[np.int64], radix: int) -> _Order:
    contexts = grams // np.uint64(radix)
    starts = _starts(contexts)
    totals = np.add.reduceat(counts, starts) if len(starts) else counts
    kinds = np.diff(np.append(starts, len(grams)))
    return _Order(grams, counts, contexts[starts], totals, kinds)


def _starts(values: Codes) -> NDArray[np.int64]:
    """Where a new value begins in a sorted array."""
    return np.flatnonzero(np.diff(values, prepend=~values[:1]))


def _found(table: Codes, values: Codes) -> NDArray[np.int64]:
    """Place of each value in a sorted table, -1 where it is not there."""
    places = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[places] == values, places, -1)
