"""`headwater gc` and `headwater verify`, by the command."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from serving.record import DeploymentRecord, deployment_of, write_record
from stages.store import Artifact, ArtifactWriter, Config, Stage, Store, load, write_ref
from stages.training.checkpoint.memory_tier import KEEP_SECONDS, ROOT_VARIABLE, MemoryFolder


class Toy(Config):
    text: str
    """What is written."""


def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    writer.put("weights/text.txt", config.text.encode())


model = Stage("model", 1, build)
training = Stage("training", 1, build, separate_runs=True)


@pytest.fixture
def store(own_installation: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    return Store(own_installation["HEADWATER_STORE"])


def headwater(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.output


def run(store: Store, text: str) -> tuple[Artifact, Artifact]:
    """A training run and its model."""
    trained = training.run(Toy(text=f"{text} trained"), {}, store)
    return trained, model.run(Toy(text=text), {"training": trained}, store)


def test_an_empty_store_is_in_order(store: Store) -> None:
    assert "nothing to delete" in headwater("gc")
    assert "0 artifacts" in headwater("verify")
    assert not Path(store.root).exists()


def test_gc_removes_what_neither_ref_nor_deployment_reaches(store: Store) -> None:
    old, champion, served, prepared = (run(store, text) for text in ("old", "champion", "served", "prepared"))
    write_ref(store, "biomed", "champion", champion[1])
    stable, canary = (deployment_of(pair[1], "biomed", number) for number, pair in ((1, served), (2, prepared)))
    write_record(store, DeploymentRecord(stable=stable, canary=canary))
    before = store.list("")
    shown = json.loads(headwater("gc", "--dry-run", "--json"))
    assert [item["folder"] for item in shown["items"]] == [old[1].folder, old[0].folder]
    assert all(item["why"] == "no ref reaches it" and not item["removed"] for item in shown["items"])
    assert [kept["folders"] for kept in shown["kept"]] == [6]
    assert "Would be deleted" in headwater("gc", "--dry-run")
    assert store.list("") == before
    shown = headwater("gc")
    assert "2 items" in shown and old[1].id in shown
    assert all(load(store, artifact.folder) for pair in (champion, served, prepared) for artifact in pair)
    assert not any(load(store, artifact.folder) for artifact in old)
    assert json.loads(headwater("gc", "--json"))["items"] == []


def test_gc_keeps_on_request(store: Store) -> None:
    artifacts = run(store, "new")
    assert json.loads(headwater("gc", "--keep-hours", "1", "--json"))["items"] == []
    assert len(json.loads(headwater("gc", "--json"))["items"]) == len(artifacts)


def test_gc_refuses_where_a_ref_points_at_nothing(store: Store) -> None:
    champion = run(store, "champion")[1]
    write_ref(store, "biomed", "champion", champion)
    store.remove(champion.folder)
    result = CliRunner().invoke(app, ["gc"])
    assert "refs/biomed/champion points at" in str(result.exception)
    shown = json.loads(headwater("verify", "--json", code=1))
    assert [damage["of"] for damage in shown["damaged"]] == ["refs/biomed/champion"]
    headwater("verify", "biomed/champion", code=1)


def test_gc_removes_checkpoints_in_memory_that_nobody_resumed_for_a_day(store: Store) -> None:
    old, new, used = (MemoryFolder(f"/store/training/{name}/checkpoints") for name in ("old", "new", "used"))
    then = time.time() - KEEP_SECONDS - 60
    for folder in (old, used):
        (folder.path / "slot-0" / "weights").write_bytes(bytes(5000))
        for path in folder.path.rglob("*"):
            os.utime(path, (then, then))
    old.close()
    new.close()
    (item,) = json.loads(headwater("gc", "--dry-run", "--json"))["items"]
    assert item["folder"] == str(old.path) and item["id"] == "/store/training/old/checkpoints" and not item["removed"]
    assert item["bytes"] > 5000 and old.path.exists()
    assert "1 item" in headwater("gc")
    assert not old.path.exists() and new.path.exists() and used.path.exists()
    used.close()


def test_verify_names_the_file_and_the_remedy(store: Store) -> None:
    trained, champion = run(store, "champion")
    write_ref(store, "biomed", "champion", champion)
    other = run(store, "other")[1]
    assert "no damage" in headwater("verify")
    path = champion.local("weights/text.txt")
    path.write_bytes(b"champioN")
    os.unlink(trained.local("weights/text.txt"))
    shown = headwater("verify", code=1)
    assert re.search(rf"{path} \({champion.id}\): its sha256 is not the manifest's; remove {path.parents[1]}", shown)
    assert f"{trained.local('weights/text.txt')} ({trained.id}): missing" in shown
    assert "2 damaged or missing" in shown
    shown = json.loads(headwater("verify", "biomed/champion", "--json", code=1))
    assert (shown["artifacts"], len(shown["damaged"])) == (2, 2)
    assert "no damage" not in headwater("verify", "biomed/champion", code=1)
    assert json.loads(headwater("verify", other.digest[:10], "--json"))["damaged"] == []


def test_a_damaged_deployment_record_is_reported(store: Store) -> None:
    store.put("deployments/record.json", b'{"stable": 1}')
    assert "deployments/record.json" in headwater("verify", code=1)
    assert "record.json" in str(CliRunner().invoke(app, ["gc"]).exception)
