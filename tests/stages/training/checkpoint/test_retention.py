"""Which checkpoints stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import Store
from stages.training.checkpoint.finding import committed_checkpoints
from stages.training.checkpoint.retention import superseded
from stages.training.config import CheckpointConfig
from tests.stages.training.checkpoint.small import FOLDER, Small, folder_of, written
from tests.support import examples

BITS: dict[int, float | None] = {10: None, 20: 3.0, 30: 2.0, 40: 2.0, 50: 2.5, 60: None}


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({"keep": 2}, [50, 60]),
        ({"keep": 9}, [10, 20, 30, 40, 50, 60]),
        ({"keep": 1, "keep_every_steps": 20}, [20, 40, 60]),
        ({"keep": 1, "keep_best": True}, [30, 60]),  # the first of two after one validation
        ({"keep": 1, "keep_every_steps": 25, "keep_best": True}, [30, 50, 60]),
    ],
)
def test_newest_every_so_many_and_best_stay(config: dict[str, Any], kept: list[int]) -> None:
    gone = superseded(BITS, CheckpointConfig(**config))
    assert [step for step in BITS if step not in gone] == kept
    assert not superseded({}, CheckpointConfig(**config))


@given(
    known=st.dictionaries(st.integers(0, 50), st.none() | st.floats(0, 9), max_size=12),
    keep=st.integers(1, 4),
    every=st.integers(0, 9),
    best=st.booleans(),
)
@examples(50)
def test_the_newest_always_stay_and_what_is_gone_does_not_change_what_stays(
    known: dict[int, float | None], keep: int, every: int, best: bool
) -> None:
    config = CheckpointConfig(keep=keep, keep_every_steps=every, keep_best=best)
    gone = superseded(known, config)
    assert not {*gone} & {*sorted(known)[-keep:]}
    left = {step: bits for step, bits in known.items() if step not in gone}
    assert superseded(left, config) == []


def test_superseded_ones_are_removed_also_by_a_later_attempt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    disk = written(store, 10, 20, 30)
    run = Small(store, keep=1, keep_every_steps=20, keep_best=True)
    run.restore()
    run.save(40)
    run.save(50)
    run.leave()
    assert [*map(Path, committed_checkpoints(store, FOLDER))] == [
        folder_of(Path(FOLDER), step) for step in (20, 40, 50)
    ]
    assert sorted(path.name for path in disk.iterdir()) == [folder_of(disk, step).name for step in (20, 40, 50)]
