"""What must hold after a fault, and after the same call was repeated."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow.parquet as pq

from stages.store import Artifact, Store, load
from tests.faults.forge import Run
from tests.stages.training.prepared import weights_of
from tests.support import damaged_files

_OF_A_RUN = re.compile(
    r"outcome\.json|checkpoints/step-\d{8}/((manifest|state|index)\.json|(weights|optimizer)-[0-9-]+\.safetensors)"
)
"""Files of a training run that are not in its artifact."""


def assert_same(undisturbed: Artifact, run: Run, url: str, cache: Path) -> Artifact:
    """Asserts that a run has the artifact of an undisturbed one, and that nothing is left over."""
    assert run.wait() == 0, run.result
    artifact = load(Store(url), run.result["folder"])
    assert artifact is not None and not damaged_files(artifact)
    if artifact.manifest.kind == "training":  # the history holds tokens per second
        assert weights_of(artifact) == weights_of(undisturbed)
        assert losses(artifact) == losses(undisturbed)
    else:
        assert artifact.digest == undisturbed.digest
    assert leftovers(artifact) == []
    assert scratch(cache) == []
    assert run.all_ended()
    return artifact


def losses(training: Artifact) -> list[float]:
    with training.open("loss.parquet") as stream:
        return pq.read_table(stream)["loss"].to_pylist()


def leftovers(artifact: Artifact) -> list[str]:
    """Everything in the store that belongs neither to this artifact nor to its log."""
    store, inside = artifact.store, len(artifact.folder) + 1
    names = ("manifest.json", "events.jsonl", *(file.path for file in artifact.files()))
    known = {f"{artifact.folder}/{name}" for name in names}
    found = [name for name in store.list("") if name not in known and not name.startswith(f"{artifact.folder}/events/")]
    if artifact.manifest.kind == "training":
        found = [name for name in found if not _OF_A_RUN.fullmatch(name[inside:])]
    if store.is_local:
        empty = (folder for folder, folders, files in os.walk(store.root) if not folders and not files)
        found += [f"{os.path.relpath(folder, store.root)}/" for folder in empty]
    return found


def scratch(cache: Path) -> list[str]:
    """Everything in the user's cache but fetched artifacts and the folders in common use."""
    found = (path.relative_to(cache / "headwater") for path in cache.glob("headwater/*/**/*"))
    return sorted(str(path) for path in found if path.parts[0] != "artifacts")


def assert_nothing_whole(url: str, kind: str) -> None:
    """Asserts that the store has no artifact of a kind."""
    store = Store(url)
    assert [folder for folder in store.folders(kind) if load(store, folder)] == []


def assert_error(run: Run, *words: str) -> str:
    """Asserts that the run ended with a StoreError whose message has these words, and printed no traceback."""
    assert run.wait() == 1, (run.status, run.log)
    assert run.result["error"] == "StoreError", (run.result, run.log)
    message = run.result["message"]
    missing = [word for word in words if word not in message]
    assert not missing, (missing, message)
    for trace in ("Traceback", "Exception ignored", 'File "'):
        assert trace not in message and trace not in run.log, (message, run.log)
    assert run.all_ended()
    return str(message)
