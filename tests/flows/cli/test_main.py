"""The command line: one clear message for a user's mistake, never a traceback; JSON where asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEADWATER = Path(sys.executable).with_name("headwater")


def headwater(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HEADWATER), *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "biomet"], "did you mean 'biomed'"),
        (["run", "biomed", "--set", "training.stepz=1"], "did you mean 'steps'"),
        (["run", "biomed", "--data", "/no/such/folder"], "/no/such/folder does not exist"),
        (["run", "biomed", "--data", f"/{'a' * 300}"], "aaa does not exist"),
        (["run", "biomed", "--again"], "--again is now called --force-new-run"),
        (["lineage", "nothing"], "no artifact 'nothing'"),
        (["recipes", "biomet"], "did you mean 'biomed'"),
    ],
)
def test_mistakes_end_with_one_message(own_installation: dict[str, str], arguments: list[str], message: str) -> None:
    result = headwater(*arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_empty_folder_is_named(own_installation: dict[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = headwater("run", "biomed", "--data", str(empty))
    assert result.returncode == 2
    assert str(empty) in "".join(result.stderr.split("\n"))


def test_dry_run_needs_no_service_and_builds_nothing(own_installation: dict[str, str]) -> None:
    result = headwater("run", "biomed", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    states = {row["stage"]: row["state"] for row in json.loads(result.stdout)}
    assert states["sample"] == "would run"
    assert states["corpus"] == "would run after sample"
    assert not Path(own_installation["HEADWATER_STORE"]).exists()


def test_recipes_are_listed_and_shown(own_installation: dict[str, str]) -> None:
    rows = json.loads(headwater("recipes", "--json").stdout)
    assert "biomed" in [row["name"] for row in rows]
    assert json.loads(headwater("recipes", "biomed", "--json").stdout)["training"]["model"]["size"]
    assert json.loads(headwater("recipes", "--schema").stdout)["title"] == "Recipe"
    assert "biomed" in headwater("recipes").stdout


def test_status_and_down_without_services(own_installation: dict[str, str]) -> None:
    status = json.loads(headwater("status", "--json").stdout)
    assert [row["running"] for row in status["services"]] == [False] * 4
    assert status["served"] is None
    assert json.loads(headwater("down", "--json").stdout) == {"stopped": []}
    assert "nothing was running" in headwater("down").stderr
