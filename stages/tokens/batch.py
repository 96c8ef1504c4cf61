"""Batches: which samples a rank takes, and the inputs and targets of a model. Plain numpy.

What is trained: every token but a sample's first is a target of the token before it, unless that token is an EOS: the
first token of a document has nothing before it, and the padding after a source's last document is not text. The EOS at
a document's end *is* a target, of the document's last token, so that the model learns to stop. Bits-per-byte counts
what is trained except the EOS, which stands for no bytes of text: a document's first token and its EOS, and their
bytes, are left out of both sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import IGNORE_INDEX


class ModelInputs(NamedTuple):
    """Inputs and targets of n samples of T tokens: arrays [n, T - 1] in C order."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    """The next token, or IGNORE_INDEX."""


def model_inputs(rows: NDArray[Any], eos_id: int) -> ModelInputs:
    """Inputs and targets of samples: any integers [n, T]."""
    length = rows.shape[1]
    inputs, targets = (part.astype(np.int64, order="C") for part in (rows[:, :-1], rows[:, 1:]))
    # The EOS are searched in the rows as they are stored, which are narrower than the inputs.
    line, place = np.divmod(np.flatnonzero(rows.ravel() == eos_id), length)
    targets.reshape(-1)[(line * (length - 1) + place)[place < length - 1]] = IGNORE_INDEX
    return ModelInputs(inputs, targets)


def counts_for_bits_per_byte(targets: NDArray[np.int64], eos_id: int) -> NDArray[np.bool_]:
    """Which targets count in bits-per-byte: all that are trained except EOS."""
    return (targets != IGNORE_INDEX) & (targets != eos_id)


def rank_slots(global_batch_size: int, rank: int, ranks: int, streams: int = 1) -> NDArray[np.int64]:
    """Slots of a batch (0 to global_batch_size - 1) of one rank, in stream-major order: int64 [about size / ranks].

    Raises:
        ValueError: a batch size that is not a multiple of the data streams, or a rank outside [0, ranks).
    """
    if global_batch_size < 1 or global_batch_size % streams:
        raise ValueError(f"global batch size {global_batch_size} is not a positive multiple of {streams} streams")
    if not 0 <= rank < ranks:
        raise ValueError(f"rank {rank} is not in 0 to {ranks - 1}")
    order = np.arange(global_batch_size, dtype=np.int64).reshape(global_batch_size // streams, streams).T.ravel()
    return order[rank * global_batch_size // ranks : (rank + 1) * global_batch_size // ranks]
