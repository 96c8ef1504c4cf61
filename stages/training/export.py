"""What a finished run leaves: whole weights and the loss of every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from stages.training.sharded import whole

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens", pa.int64()),
    ]
)
"""Columns of `loss.parquet`, one line an update. `tokens` counts from the start of the run."""


def whole_weights(model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Every parameter gathered, fp32 on the host, where `keep` is set (rank 0). Every rank must call it."""
    gathered = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter.detach())
        if keep:
            gathered[name] = tensor.to("cpu", torch.float32)
    return gathered


def write_history(history: Sequence[dict[str, float]], path: Path) -> None:
    """Writes the loss of every step."""
    pq.write_table(pa.Table.from_pylist(list(history), schema=SCHEMA), path)
