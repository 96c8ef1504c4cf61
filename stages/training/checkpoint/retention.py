"""Which checkpoints stay: the newest, every so many steps, and the best. The others are removed."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from stages.store.store import Store
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import MANIFEST

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


def forget_superseded(known: MutableMapping[int, float | None], config: CheckpointConfig) -> None:
    """Takes the steps that `remove_superseded` removes from `known`."""
    for step in superseded(known, config):
        del known[step]


def remove_superseded(store: Store, folder: str, known: Mapping[int, float | None], config: CheckpointConfig) -> None:
    """Removes them from a store, each one's manifest first, so that a half-removed one is not a checkpoint.

    Args:
        folder: the run's `checkpoints` folder.
    """
    for step in superseded(known, config):
        name = f"{folder}/{step_folder(step)}"
        store.remove(f"{name}/{MANIFEST}")
        store.remove(name)
