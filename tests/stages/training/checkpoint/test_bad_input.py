"""Checkpoints that were damaged, mixed up, or made by somebody else: each is named, and the one before is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.store import Store, StoreError
from stages.training.checkpoint.format import INDEX, MANIFEST, STATE
from tests.stages.training.checkpoint.small import (
    OPTIMIZER,
    WEIGHTS,
    Small,
    bits,
    flip,
    folder_of,
    restored,
    rewrite,
    values,
    written,
)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _of_the_one_before(path: Path) -> None:
    shutil.copy(path.parents[1] / "step-00000001" / path.name, path)


def _link_elsewhere(path: Path) -> None:
    outside = path.parents[3] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FILES = [WEIGHTS, OPTIMIZER, INDEX, STATE]
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn": (_cut, "missing, or of another size"),
    "missing": (Path.unlink, "missing, or of another size"),
    "a flipped bit": (flip, "not what was written"),
    "a link to a file elsewhere": (_link_elsewhere, "missing, or of another size"),
    "a pipe": (_pipe, "missing, or of another size"),
}
CASES = [(file, damage) for file in FILES for damage in DAMAGES]
# The index depends on shapes alone, so that of the step before is the same.
CASES += [(file, "stale") for file in FILES if file != INDEX]
DAMAGES["stale"] = (_of_the_one_before, "not what was written")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize(("file", "damage"), CASES)
def test_a_damaged_file_is_named_and_the_one_before_loaded(store: Store, file: str, damage: str) -> None:
    disk = written(store, 1, 2)
    do, reason = DAMAGES[damage]
    do(folder_of(disk, 2) / file)
    step, run = restored(store)
    assert step == 1 and run.refused == {f"step-00000002/{file}": reason}


@pytest.mark.parametrize("file", FILES)
def test_with_none_left_the_error_names_them_and_says_what_to_do(store: Store, file: str) -> None:
    disk = written(store, 1, 2)
    for step in (1, 2):
        flip(folder_of(disk, step) / file)
    names = rf"step-00000002/{file}, step-00000001/{file} \(not what was written\)"
    with pytest.raises(StoreError, match=rf"no checkpoint below {disk} can be loaded: {names}; remove the folder"):
        restored(store)


def _other_step(manifest: Any) -> None:
    manifest["step"] = 3


def _other_file(path: str) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        manifest["files"][0]["path"] = path

    return change


def _no_index(manifest: Any) -> None:
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != INDEX]


MANIFESTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "of another step": (_other_step, "it is of step 3"),
    "../x": (_other_file("../x"), "not a file name"),
    "/etc/passwd": (_other_file("/etc/passwd"), "not a file name"),
    "a path in a folder": (_other_file(f"x/{WEIGHTS}"), "not a file name"),
    "without an index": (_no_index, "it lists no index.json"),
    "without a checksum": (lambda manifest: manifest["files"][0].pop("sha256"), "neither sha256 nor xxh3"),
    "a format to come": (lambda manifest: manifest.update(format=3), r"of another format \(3\)"),
    "a format for the terminal": (lambda manifest: manifest.update(format="\x1b[2J"), r"\\x1b\[2J"),
}


@pytest.mark.parametrize("name", [*MANIFESTS])
def test_a_forged_manifest_is_refused(store: Store, name: str) -> None:
    disk = written(store, 1, 2)
    change, reason = MANIFESTS[name]
    rewrite(folder_of(disk, 2), MANIFEST, change)
    _assert_refused_for(store, MANIFEST, reason)


def _assert_refused_for(store: Store, file: str, reason: str) -> None:
    step, run = restored(store)
    assert step == 1 and [*run.refused] == [f"step-00000002/{file}"]
    assert re.search(reason, run.refused[f"step-00000002/{file}"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", "{}".encode("utf-16"), b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(store: Store, content: bytes) -> None:
    disk = written(store, 1, 2)
    (folder_of(disk, 2) / MANIFEST).write_bytes(content)
    _assert_refused_for(store, MANIFEST, "not valid JSON|not a JSON object|another format")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_manifest_in_another_encoding_is_refused(store: Store, encoding: str) -> None:
    manifest = folder_of(written(store, 1, 2), 2) / MANIFEST
    manifest.write_bytes(manifest.read_text().encode(encoding))
    _assert_refused_for(store, MANIFEST, "not valid JSON")


def _piece(field: str, value: object) -> Callable[[Any], None]:
    def change(index: Any) -> None:
        index["tensors"]["weight.a"]["pieces"][0][field] = value

    return change


def _twice(index: Any) -> None:
    index["tensors"]["weight.a"]["pieces"] *= 2


def _other_shape(index: Any) -> None:
    index["tensors"]["weight.a"] |= {"shape": [5, 7], "pieces": []}
    index["tensors"]["weight.a"]["pieces"] = [{"file": WEIGHTS, "offset": 0, "start": [0, 0], "shape": [5, 7]}]


INDICES: dict[str, tuple[Callable[[Any], None], str]] = {
    "behind the end of its file": (_piece("offset", 1 << 40), f"outside of {WEIGHTS}"),
    "before its beginning": (_piece("offset", -1), "greater than or equal to 0"),
    "outside of the tensor": (_piece("start", [1, 0]), "outside of the tensor"),
    "in a file that is not listed": (_piece("file", "weights-x"), "outside of weights-x"),
    "in ../x": (_piece("file", "../x"), "not a file name"),
    "in /etc/passwd": (_piece("file", "/etc/passwd"), "not a file name"),
    "twice": (_twice, "as many numbers|overlap"),
    "of another shape": (_other_shape, r"its weight\.a is F32 \[5, 7\], not F32 \[7, 5\]"),
    "of no tensor": (lambda index: index["tensors"].pop("weight.a"), r"it has no weight\.a"),
}


@pytest.mark.parametrize("name", [*INDICES])
def test_a_forged_index_is_refused(store: Store, name: str) -> None:
    disk = written(store, 1, 2)
    change, reason = INDICES[name]
    rewrite(folder_of(disk, 2), INDEX, change)
    _assert_refused_for(store, INDEX, reason)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"step": ', b"\xff", b"[" * 100_000])
def test_a_state_that_is_no_json_object_is_refused(store: Store, content: bytes) -> None:
    folder = folder_of(written(store, 1, 2), 2)
    rewrite(folder, STATE, lambda state: None)
    (folder / STATE).write_bytes(content)
    _list_as_it_is(folder, STATE)
    _assert_refused_for(store, STATE, ".")


def _list_as_it_is(folder: Path, name: str) -> None:
    """Gives a file the manifest's blessing."""
    data = (folder / name).read_bytes()
    manifest = json.loads((folder / MANIFEST).read_bytes())
    entry = next(entry for entry in manifest["files"] if entry["path"] == name)
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_state_of_another_run_is_refused(store: Store) -> None:
    written(store, 1, 2)

    def accept(state: Mapping[str, Any]) -> str:
        return "it is of another run" if state["step"] == 2 else ""

    step, run = restored(store, accept=accept)
    assert step == 1 and run.refused == {"step-00000002/state.json": "it is of another run"}


def test_the_older_format_is_refused_with_its_own_message(store: Store) -> None:
    disk = written(store, 1)
    folder = folder_of(disk, 1)
    shutil.rmtree(folder)
    folder.mkdir()
    entries = []
    for name in (".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(b"x")
        entries.append({"path": name, "bytes": 1, "sha256": "0" * 64})
    (folder / MANIFEST).write_text(json.dumps({"step": 1, "world": 1, "files": entries}))
    with pytest.raises(
        StoreError, match=r"step-00000001/manifest\.json is of another format .*PyTorch.*finish the run"
    ):
        restored(store)


def test_a_link_in_the_place_of_a_checkpoint_is_neither_read_nor_written_through(store: Store, tmp_path: Path) -> None:
    disk, outside = written(store, 1, 2), tmp_path / "outside"
    folder_of(disk, 2).rename(outside)
    folder_of(disk, 2).symlink_to(outside)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    run = Small(store)
    found = run.restore()
    assert found is not None and found.step == 1
    with pytest.raises(StoreError, match=r"step-00000002.*link"):
        run.save(2)
    run.leave()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_a_damaged_checkpoint_does_not_crowd_out_the_one_that_comes_after_an_older_one(store: Store) -> None:
    """Step 3 is damaged, the run goes on from 1 and saves 2: keeping the newest one means step 2."""
    flip(folder_of(written(store, 1, 3), 3) / WEIGHTS)
    run = Small(store, keep=1)
    run.restore()
    run.save(2)
    run.leave()
    assert restored(store)[0] == 2


def test_a_tensor_without_numbers_has_no_piece_and_is_restored(store: Store) -> None:
    def with_empty(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {"weight.none": torch.empty(0, 3)}

    run = Small(store, wrap=with_empty)
    run.restore()
    run.save(1)
    run.leave()
    again = Small(store, wrap=with_empty)
    assert again.restore() is not None and bits(again.tensors) == bits(with_empty(values(1)))
    again.leave()
