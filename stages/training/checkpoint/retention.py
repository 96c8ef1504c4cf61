"""Which checkpoints stay: the newest, every so many steps, and the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.training.config import CheckpointConfig


def superseded(known: Mapping[int, float | None], config: CheckpointConfig) -> list[int]:
    """Steps of the checkpoints to remove.

    Args:
        known: bits per byte by step, None where there was no validation before it.
    """
    steps = sorted(known)
    stay = set(steps[-config.keep :])
    if config.keep_every_steps:
        stay.update(step for step in steps if step % config.keep_every_steps == 0)
    judged = [(bits, -step) for step, bits in known.items() if bits is not None]
    if config.keep_best and judged:
        stay.add(-min(judged)[1])
    return [step for step in steps if step not in stay]
