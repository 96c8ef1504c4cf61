"""The history: written and read back with every bit, in a checkpoint's state and in the files of a run."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
    restored = History.from_state(json.loads(json.dumps(history.state())), len(history))
    for name in STEPS.names:
        np.testing.assert_array_equal(restored.column(name), history.column(name))
    assert restored.validations == history.validations and restored.bits_per_byte == 2.0
    restored.append(_entry(5))
    assert len(restored) == 6 and restored.last("step") == 5


def test_a_history_without_entries() -> None:
    history = History.from_state(json.loads(json.dumps(History().state())), 0)
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


def _nulls(count: int) -> pa.Table:
    return pa.table({name: pa.nulls(count, STEPS.field(name).type) for name in STEPS.names})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validations": [{}]}, "step"),
        ({"validations": "ab"}, "list"),
        (
            {"validations": [{"step": 1, "tokens": 1, "seconds": 1.0, "bits_per_byte": "x", "by_source": {}}]},
            "bits_per",
        ),
        ({"validations": [{"step": 1e300, "tokens": 1, "seconds": 1, "bits_per_byte": 1, "by_source": {}}]}, "step"),
        ({"steps": pa.table({"step": [1]})}, "other columns"),
        ({"steps": STEPS.empty_table().append_column("more", pa.array([], pa.int64()))}, "other columns"),
        (
            {"steps": pa.table({name: pa.nulls(1, STEPS.field(name).type) for name in STEPS.names})},
            "updates without step",
        ),
        ({"steps": pa.table({name: pa.nulls(3, STEPS.field(name).type) for name in STEPS.names})}, "3 updates, of 2"),
    ],
)
def test_what_is_no_history_is_refused(change: dict[str, Any], message: str) -> None:
    state = History().state()
    for name, value in change.items():
        if isinstance(value, pa.Table):
            content = io.BytesIO()
            pq.write_table(value.cast(STEPS) if value.schema.names == STEPS.names else value, content)
            value = base64.b64encode(content.getvalue()).decode()
        state[name] = value
    with pytest.raises(ValueError, match=message):
        History.from_state(state, 2)
