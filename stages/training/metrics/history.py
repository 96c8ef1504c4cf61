"""A run's history: every update and every validation. Checkpoints carry it from the start of the run to its end."""

from __future__ import annotations

import base64
import io
import math
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stages.store.fields import Printable
from stages.training.metrics.phase_clock import PHASES

STEPS = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens", pa.int64()),
        ("seconds", pa.float64()),
        ("model_flops_utilization", pa.float64()),
        ("update_norm", pa.float64()),
        ("weight_norm", pa.float64()),
        ("memory_bytes", pa.int64()),
        *((f"{phase}_seconds", pa.float64()) for phase in (*PHASES, "stall")),
    ]
)
"""Columns of `loss.parquet`, one line an update.

`tokens` and `seconds` count from the start of the run; `seconds` without validation, and without what was lost between
a checkpoint and a restart. `update_norm` and `weight_norm` (of the change of all weights by this update, and of the
weights after it) are measured now and then, and empty otherwise. `model_flops_utilization` is a share of the card's
dense peak where that is known, of a product timed at the start elsewhere. `memory_bytes` is the most that the first
rank has held so far: of the device's memory on a GPU, of the machine's on a CPU. The first rank's seconds by phase are
`phases.PHASES`; checkpoint and validation are those just before the update, and `stall_seconds` is what
`PhaseClock.seconds` says."""

VALIDATIONS = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("seconds", pa.float64()),
        ("source", pa.string()),
        ("bits_per_byte", pa.float64()),
    ]
)
"""Columns of `validation.parquet`, one line a source and validation, and one of all, whose `source` is empty. `step`
counts updates that were made, or skipped, before it."""


_NORMS = ("update_norm", "weight_norm")
"""Columns that are empty in most lines."""


class _Validation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    step: Annotated[int, Field(ge=0, lt=1 << 62)]
    tokens: Annotated[int, Field(ge=0, lt=1 << 62)]
    seconds: float
    bits_per_byte: float
    by_source: dict[Printable, float]


_VALIDATIONS = TypeAdapter(list[_Validation])


class History:
    """What has been recorded so far, by column: a long run has millions of numbers."""

    def __init__(self) -> None:
        self._columns = {name: array("d") for name in STEPS.names}
        self.validations: list[dict[str, Any]] = []
        """`step`, `tokens`, `seconds`, `bits_per_byte`, and `by_source` {source: bits per byte}, in order."""

    def __len__(self) -> int:
        return len(self._columns["step"])

    def append(self, entry: Mapping[str, float]) -> None:
        """Adds an update: `STEPS` by name; the norms may be missing."""
        for name, column in self._columns.items():
            column.append(entry[name] if name not in _NORMS else entry.get(name, math.nan))

    def column(self, name: str) -> NDArray[np.float64]:
        """A column: float64 [updates]."""
        return np.array(self._columns[name])

    def last(self, name: str) -> float:
        """The newest value of a column; 0 where there is none."""
        return self._columns[name][-1] if len(self) else 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """By the newest validation."""
        return self.validations[-1]["bits_per_byte"] if self.validations else None

    def snapshot(self) -> History:
        """A copy as it is now, to be read in another thread."""
        copy = History()
        copy._columns = {name: column[:] for name, column in self._columns.items()}
        copy.validations = list(self.validations)
        return copy

    def state(self) -> dict[str, Any]:
        """Plain JSON values; the columns as Parquet in base64, a quarter of what the numbers take as text."""
        content = io.BytesIO()
        pq.write_table(self._table(), content, compression="zstd")
        return {"steps": base64.b64encode(content.getvalue()).decode(), "validations": self.validations}

    @classmethod
    def from_state(cls, saved: Mapping[str, Any], updates: int) -> History:
        """From what `state` gave.

        Args:
            updates: that the run had made.

        Raises:
            ValueError: it holds more of them, or something else.
        """
        history = cls()
        with pq.ParquetFile(io.BytesIO(base64.b64decode(saved["steps"]))) as file:
            if file.metadata.num_rows > updates:  # before it is read: a few bytes may say that there are millions
                raise ValueError(f"has {file.metadata.num_rows} updates, of {updates} that were made")
            if not file.schema_arrow.equals(STEPS):
                raise ValueError("has other columns than this version writes")
            table = file.read()
        for name, column in history._columns.items():
            if table[name].null_count and name not in _NORMS:
                raise ValueError(f"has updates without {name}")
            column.extend(table[name].to_numpy().astype(np.float64))
        history.validations = [found.model_dump() for found in _VALIDATIONS.validate_python(saved["validations"])]
        return history

    def write_steps(self, path: Path) -> None:
        """Writes `STEPS`."""
        pq.write_table(self._table(), path)

    def write_validations(self, path: Path) -> None:
        """Writes `VALIDATIONS`."""
        lines = []
        for found in self.validations:
            common = {name: found[name] for name in ("step", "tokens", "seconds")}
            lines.append(common | {"source": None, "bits_per_byte": found["bits_per_byte"]})
            lines += [common | {"source": s, "bits_per_byte": value} for s, value in found["by_source"].items()]
        pq.write_table(pa.Table.from_pylist(lines, schema=VALIDATIONS), path)

    def _table(self) -> pa.Table:
        columns = []
        for field in STEPS:
            values = np.array(self._columns[field.name])
            empty = np.isnan(values)
            columns.append(pa.array(np.where(empty, 0, values), mask=empty).cast(field.type))
        return pa.Table.from_arrays(columns, schema=STEPS)
