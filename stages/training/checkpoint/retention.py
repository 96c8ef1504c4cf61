"""Which checkpoints stay: the newest, every so many steps, and the best. The others are removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from stages.store.store import Store
from stages.training.checkpoint.finding import is_step_folder, step_folder, step_of
from stages.training.checkpoint.format import MANIFEST

if TYPE_CHECKING:
    from stages.training.config import CheckpointConfig

_KEPT_ON_DISK = 2
"""Checkpoints that stay on this machine's disk when they go to an object store."""


def superseded(known: Mapping[int, float | None], config: CheckpointConfig) -> list[int]:
    """Steps of the checkpoints to remove.

    Args:
        known: bits per byte by step, None where there was no validation before it.
    """
    steps = sorted(known)
    stay = set(steps[-config.keep :])
    if config.keep_every_steps:
        stay.update(step for step in steps if step % config.keep_every_steps == 0)
    judged = [(bits, step) for step, bits in known.items() if bits is not None]
    if config.keep_best and judged:
        stay.add(min(judged)[1])  # of those after one validation the first: its weights are the validated ones
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


def remove_half_written(disk: Path) -> None:
    """Removes what attempts that were killed in a save left on this machine's disk.

    Raises:
        OSError: it cannot be removed.
    """
    for path in disk.iterdir() if disk.is_dir() else ():
        own = is_step_folder(path.name) and path.is_dir() and not path.is_symlink()
        if own and not os.path.lexists(path / MANIFEST):
            shutil.rmtree(path)


def thin_out(newest: Path, uploading: Path | None) -> None:
    """Keeps the newest checkpoints on this machine's disk, and the one on its way to a slow store. One of a later step
    than the newest was refused at the start, and does not count."""
    disk = newest.parent
    steps = (
        path for path in disk.iterdir() if is_step_folder(path.name) and step_of(path.name) <= step_of(newest.name)
    )
    whole = sorted((path for path in steps if (path / MANIFEST).is_file()), key=lambda path: step_of(path.name))
    for path in whole[:-_KEPT_ON_DISK]:
        if path == uploading:
            continue
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    for path in disk.glob(".fetched-*"):
        shutil.rmtree(path, ignore_errors=True)
