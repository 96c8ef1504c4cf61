"""The history: written and read back with every bit, in a checkpoint's state and in the files of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from stages.training.metrics.history import STEPS, History


def _entry(step: int, **changes: float) -> dict[str, float]:
    values = dict.fromkeys(STEPS.names, 1 / 3) | {"step": step, "tokens": 100 * step, "memory_bytes": 2**40 + step}
    return {name: value for name, value in (values | changes).items() if not math.isnan(value)}


def _history() -> History:
    history = History()
    for step in range(5):
        history.append(_entry(step, update_norm=0.1 if step == 2 else math.nan, weight_norm=math.nan))
    history.validations = [
        {"step": 3, "tokens": 200, "seconds": 1.5, "bits_per_byte": 2.25, "by_source": {"a": 2.0, "b": 3.0}},
        {"step": 5, "tokens": 400, "seconds": 2.5, "bits_per_byte": 2.0, "by_source": {"a": 2.0}},
    ]
    return history


def test_a_checkpoint_s_state_restores_every_bit() -> None:
    history = _history()
    restored = History.from_state(json.loads(json.dumps(history.state())))
    for name in STEPS.names:
        np.testing.assert_array_equal(restored.column(name), history.column(name))
    assert restored.validations == history.validations and restored.bits_per_byte == 2.0
    restored.append(_entry(5))
    assert len(restored) == 6 and restored.last("step") == 5


def test_a_history_without_entries() -> None:
    history = History.from_state(json.loads(json.dumps(History().state())))
    assert len(history) == 0 and history.last("tokens") == 0 and history.bits_per_byte is None


def test_the_files(tmp_path: Path) -> None:
    history = _history()
    history.write_steps(tmp_path / "loss.parquet")
    table = pq.read_table(tmp_path / "loss.parquet")
    assert table.schema.equals(STEPS)
    assert table["update_norm"].to_pylist() == [None, None, 0.1, None, None]
    assert table["memory_bytes"].to_pylist()[-1] == 2**40 + 4
    history.write_validations(tmp_path / "validation.parquet")
    lines = pq.read_table(tmp_path / "validation.parquet").to_pylist()
    assert [(line["step"], line["source"], line["bits_per_byte"]) for line in lines] == [
        (3, None, 2.25),
        (3, "a", 2.0),
        (3, "b", 3.0),
        (5, None, 2.0),
        (5, "a", 2.0),
    ]
    assert {line["seconds"] for line in lines} == {1.5, 2.5}
