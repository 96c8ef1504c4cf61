"""Batches: which samples a rank takes, and what a model is asked about them. Plain numpy.

What is trained: every token but a sample's first is a target of the token before it, unless that token is an EOS: the
first token of a document has nothing before it, and the filler after a source's last document is no text. The EOS at
a document's end *is* a target, of the document's last token, so that the model learns to stop. Bits-per-byte counts
what is trained except the EOS, which stands for no bytes of text: a document's first token and its EOS, and their
bytes, are left out of both sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
"""Target that no loss is computed for: PyTorch's `ignore_index`."""


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """What a model is given for n samples of T tokens: arrays [n, T - 1] in C order, and the documents' bounds."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    """The next token, or IGNORE."""
    positions: NDArray[np.int64]
    """Token of its document, counted from the sample's begin or from the last EOS: 0, 1, 2, ..."""
    cu_seqlens: NDArray[np.int32]
    """[documents + 1]: where each document begins in the flattened inputs [n * (T - 1)], and their length at the end.
    A document begins with each sample and after each EOS; what attention kernels for packed sequences take."""

    @cached_property
    def documents(self) -> NDArray[np.int32]:
        """[n, T - 1]: number of the document within the sample. Attention stays among tokens of equal number."""
        begins = np.zeros(self.inputs.size, dtype=np.int32)
        begins[self.cu_seqlens[:-1]] = 1
        return np.cumsum(begins.reshape(self.inputs.shape), axis=1, dtype=np.int32) - np.int32(1)

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest document: attention kernels want it beside `cu_seqlens`."""
        return int(np.diff(self.cu_seqlens).max(initial=0))

    @property
    def valid(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORE).sum())


def model_inputs(rows: NDArray[Any], eos_id: int) -> ModelInputs:
    """Inputs, targets, positions and bounds of documents of samples: any integers [n, T].

    The EOS are looked for once, in the rows as they are stored; all else follows from where they stand.
    """
    samples, length = rows.shape
    width = length - 1
    inputs, targets = (part.astype(np.int64, order="C") for part in (rows[:, :-1], rows[:, 1:]))
    line, place = np.divmod(np.flatnonzero(rows.ravel() == eos_id), length)
    ends = (line * width + place)[place < width]
    targets.reshape(-1)[ends] = IGNORE

    inside = ends[(ends + 1) % width != 0] + 1  # an EOS that ends a sample begins no document in it
    bounds = np.concatenate([np.arange(samples + 1) * width, inside])
    bounds.sort()
    steps = np.ones(inputs.size, dtype=np.int64)
    steps[bounds[:-1]] = 0
    steps[bounds[1:-1]] = 1 - np.diff(bounds[:-1])  # back to 0 from the last token of the document before
    positions = np.cumsum(steps, out=steps).reshape(inputs.shape)
    return ModelInputs(inputs, targets, positions, bounds.astype(np.int32))


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
