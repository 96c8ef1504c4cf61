"""Where a run's checkpoints are on this machine, and what is removed when the run ends. Needs no PyTorch."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from stages.store.errors import StoreError
from stages.store.hashing import cache_folder
from stages.store.store import Store
from stages.training.checkpoint.finding import choose, list_machine, list_store
from stages.training.checkpoint.memory_tier import remove_run, run_folder

log = logging.getLogger(__name__)


def forget_memory(store: Store, folder: str) -> None:
    """Removes a run's checkpoints from this machine's memory, unless they are newer than what the same attempt has in
    the store: then a start resumes from them. What other attempts left there may have been refused.

    Args:
        folder: the run's `checkpoints` folder.
    """
    where = store.where(folder)
    if not run_folder(where).exists():  # the workers have done it: the store need not be asked
        return
    final = "disk" if store.is_local else "store"
    try:
        listed = list_machine(run_folder(where), disk_folder(store, folder))
        found, _, _ = choose([(0, listed if store.is_local else [*listed, *list_store(store, folder)])])
    except StoreError as error:
        log.warning("the checkpoints in memory stay, since it cannot be seen what is in the store: %s", error)
        return
    for newest in [one.manifest for one in found if one.tier == "memory"][:1]:
        stored = [one.manifest for one in found if one.tier == final and one.manifest.attempt == newest.attempt]
        if newest.step > max((manifest.step for manifest in stored), default=-1):
            return
    remove_run(where)


def forget_run(store: Store, folder: str) -> None:
    """Removes from this machine what only served to resume a run that has ended: its checkpoints in memory, and those
    on disk that are in an object store too.

    Args:
        folder: the run's `checkpoints` folder.
    """
    remove_run(store.where(folder))
    if not store.is_local:
        shutil.rmtree(disk_folder(store, folder), ignore_errors=True)


def disk_folder(store: Store, folder: str) -> Path:
    """Where a machine writes a run's checkpoints: in the store if that is on local files, else in this user's cache."""
    if store.is_local:
        return store.local_path(folder)
    return cache_folder() / "checkpoints" / hashlib.sha256(store.where(folder).encode()).hexdigest()[:16]
