"""What must hold after a fault, and after the same call was made again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow.parquet as pq

from stages.store import Artifact, Store, load
from tests.faults.forge import Run
from tests.support import damaged_files

_OF_A_RUN = re.compile(r"outcome\.json|checkpoints/step-\d{8}/(manifest\.json|state\.json|\.metadata|__0_\d+\.distcp)")
"""What a training run keeps beside its artifact."""


def assert_same(undisturbed: Artifact, run: Run, url: str, cache: Path) -> Artifact:
    """Asserts that a run made what an undisturbed one makes, and that nothing is left over."""
    assert run.wait() == 0, run.result
    made = load(Store(url), run.result["folder"])
    assert made is not None and not damaged_files(made)
    if made.manifest.kind == "training":  # the history holds tokens per second
        assert made.read("weights.safetensors") == undisturbed.read("weights.safetensors")
        assert losses(made) == losses(undisturbed)
    else:
        assert made.digest == undisturbed.digest
    assert leftovers(made) == []
    assert scratch(cache) == []
    assert run.nobody_survives()
    return made


def losses(training: Artifact) -> list[float]:
    with training.open("loss.parquet") as stream:
        return pq.read_table(stream)["loss"].to_pylist()


def leftovers(made: Artifact) -> list[str]:
    """Whatever is in the store and is neither of this artifact nor of its log."""
    store, inside = made.store, len(made.folder) + 1
    known = {f"{made.folder}/{name}" for name in ("manifest.json", "events.jsonl", *(f.path for f in made.files()))}
    found = [name for name in store.list("") if name not in known and not name.startswith(f"{made.folder}/events/")]
    if made.manifest.kind == "training":
        found = [name for name in found if not _OF_A_RUN.fullmatch(name[inside:])]
    if store.is_local:
        empty = (folder for folder, folders, files in os.walk(store.root) if not folders and not files)
        found += [f"{os.path.relpath(folder, store.root)}/" for folder in empty]
    return found


def scratch(cache: Path) -> list[str]:
    """What is in the user's cache and is no fetched artifact. Of other things only their common folders stay."""
    found = (path.relative_to(cache / "headwater") for path in cache.glob("headwater/*/**/*"))
    return sorted(str(path) for path in found if path.parts[0] != "artifacts")


def assert_nothing_whole(url: str, kind: str) -> None:
    """Asserts that no artifact of a kind is there."""
    store = Store(url)
    assert [folder for folder in store.folders(kind) if load(store, folder)] == []


def assert_error(run: Run, *words: str) -> str:
    """Asserts that the run ended with a StoreError that says these, and without anything for programmers' eyes."""
    assert run.wait() == 1, (run.status, run.log)
    assert run.result["error"] == "StoreError", (run.result, run.log)
    message = run.result["message"]
    missing = [word for word in words if word not in message]
    assert not missing, (missing, message)
    for trace in ("Traceback", "Exception ignored", 'File "'):
        assert trace not in message and trace not in run.log, (message, run.log)
    assert run.nobody_survives()
    return str(message)
