"""Batches: which samples a rank takes, and what a model is asked about them. Plain numpy.

What is trained: every token but a sample's first is a target of the token before it, unless that token is an EOS: the
first token of a document has nothing before it, and the filler after a source's last document is no text. The EOS at
a document's end *is* a target, of the document's last token, so that the model learns to stop. Bits-per-byte counts
what is trained except the EOS, which stands for no bytes of text: a document's first token and its EOS, and their
bytes, are left out of both sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
"""Target that no loss is computed for: PyTorch's `ignore_index`."""


class ModelInputs(NamedTuple):
    """Arrays [n, T - 1] for samples of T tokens."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    """The next token, or IGNORE."""
    positions: NDArray[np.int64]
    """Token of its document, counted from the sample's begin or from the last EOS: 0, 1, 2, ..."""
    documents: NDArray[np.int32]
    """Number of the document within the sample. Attention stays among tokens of equal number."""

    @property
    def valid(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORE).sum())


def model_inputs(rows: NDArray[Any], eos_id: int) -> ModelInputs:
    """Inputs, targets, positions and documents of samples int [n, T]."""
    tokens = np.asarray(rows, dtype=np.int64)
    inputs, following = tokens[:, :-1], tokens[:, 1:]
    ends = inputs == eos_id
    targets = np.where(ends, IGNORE, following)
    begins = np.zeros(inputs.shape, dtype=bool)
    begins[:, 1:] = ends[:, :-1]
    place = np.arange(inputs.shape[1], dtype=np.int64)[None]
    positions = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    return ModelInputs(inputs, targets, positions, np.cumsum(begins, axis=1, dtype=np.int32))


def counted(targets: NDArray[np.int64], eos_id: int) -> NDArray[np.bool_]:
    """Which targets count in bits-per-byte: all that are trained but EOS."""
    return (targets != IGNORE) & (targets != eos_id)


def counted_bytes(targets: NDArray[np.int64], eos_id: int, token_bytes: NDArray[np.int32]) -> int:
    """Bytes that the counted targets stand for: what the summed loss of the same targets is divided by."""
    return int(token_bytes[targets[counted(targets, eos_id)]].sum(dtype=np.int64))


def rank_slots(batch: int, rank: int, ranks: int, lanes: int = 1) -> NDArray[np.int64]:
    """Slots of a batch (0 to batch - 1) that a rank takes, in lane-major order: int64 [about batch / ranks].

    Raises:
        ValueError: a batch that is no multiple of the lanes, or a rank outside [0, ranks).
    """
    if batch < 1 or batch % lanes:
        raise ValueError(f"batch: {batch} is not a multiple of the {lanes} lanes")
    if not 0 <= rank < ranks:
        raise ValueError(f"batch: rank {rank} of {ranks}")
    order = np.arange(batch, dtype=np.int64).reshape(batch // lanes, lanes).T.ravel()
    return order[rank * batch // ranks : (rank + 1) * batch // ranks]


def rank_positions(step: int, batch: int, rank: int, ranks: int, lanes: int = 1) -> NDArray[np.int64]:
    """Positions of the order that a rank takes in batch number `step`."""
    return step * batch + rank_slots(batch, rank, ranks, lanes)
