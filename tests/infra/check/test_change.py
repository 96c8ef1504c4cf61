"""Which long tests CI runs for a change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from infra.check import change
from infra.check.budget import Budget

LONG = {
    "tests/end_to_end/test_all.py": 300.0,
    "tests/end_to_end/test_some.py": 50.0,
    "tests/faults/test_kill.py": 10.0,
    "tests/serving/test_vllm.py": 100.0,
    "tests/flows/test_x.py": 10.0,
}


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("stages/corpus/near.py", "tests/stages/corpus"),
        ("tests/serving/test_gateway.py", "tests/serving"),
        ("infra/check/__main__.py", "tests/infra/check"),
        ("README.md", ""),
        ("docs/design.md", ""),
    ],
)
def test_the_tree_of_tests_mirrors_the_code(path: str, folder: str) -> None:
    assert change.test_folder(path) == folder


def test_the_nearest_come_first_and_of_these_the_quickest() -> None:
    whole = ["tests/end_to_end/test_some.py", "tests/end_to_end/test_all.py"]
    assert change.order(LONG, ["serving/slot.py"]) == ["tests/serving/test_vllm.py", *whole]
    assert change.order(LONG, ["stages/store.py"]) == ["tests/faults/test_kill.py", *whole]
    assert change.order(LONG, ["tests/end_to_end/house.py", "stages/x.py"]) == [*whole, "tests/faults/test_kill.py"]
    assert change.order(LONG, ["tests/faults/disk.py"]) == ["tests/faults/test_kill.py"]
    assert change.order(LONG, ["README.md", "models/sizes.py"]) == []


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit of three days ago, one of yesterday and two of today, on a branch named main."""
    monkeypatch.setattr(change, "REPOSITORY", tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    for name, day in (("old.py", 1), ("serving/a.py", 3), ("serving/b.py", 4), ("README.md", 4)):
        commit(tmp_path, name, f"2026-01-0{day}T12:00:00")
    return tmp_path


def git(folder: Path, *arguments: str, **env: str) -> str:
    known = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=known | env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, name: str, date: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
    git(folder, "add", name)
    git(folder, "commit", "-q", "-m", name, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)


def choose(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[str]:
    budget = Budget(900, 0.0, 480, 20, {}, LONG)
    monkeypatch.setattr(change, "long_tests", lambda: list(LONG))
    monkeypatch.setattr(Budget, "load", lambda: budget)
    return change.choose("", seconds, 900)


def test_a_day_of_commits_is_a_change_and_what_does_not_fit_is_named(
    history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near = "tests/serving/test_vllm.py"
    assert choose(monkeypatch, 480) == [near, "tests/end_to_end/test_some.py", "tests/end_to_end/test_all.py"]
    output = capsys.readouterr().out
    assert "for 2 files changed" in output, "b.py and README.md: a.py is a day older"
    assert "omitted" not in output
    assert choose(monkeypatch, 180) == [near, "tests/end_to_end/test_some.py"]
    assert "omitted, because they exceed 3 minutes: tests/end_to_end/test_all.py" in capsys.readouterr().out


def test_a_branch_is_a_change_since_it_left_main(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(history, "update-ref", "refs/remotes/origin/main", "main")
    commit(history, "README.txt", "2026-01-04T13:00:00")
    assert choose(monkeypatch, 480) == []
    commit(history, "serving/c.py", "2026-01-04T14:00:00")
    assert choose(monkeypatch, 120) == ["tests/serving/test_vllm.py"]


def test_the_long_tests_are_those_that_pytest_collects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "REPOSITORY", tmp_path)
    (tmp_path / "tests").mkdir()
    assert change.long_tests() == []
    (tmp_path / "tests/test_a.py").write_text(
        "import pytest\n\n@pytest.mark.full\ndef test_1(): ...\n\ndef test_2(): ...\n"
    )
    (tmp_path / "tests/test_b.py").write_text("def test_3(): ...\n")
    (tmp_path / "pytest.ini").write_text('[pytest]\naddopts = -q -m "not full"\nmarkers = full\n')
    assert change.long_tests() == ["tests/test_a.py"]
    (tmp_path / "tests/test_b.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(RuntimeError, match="nothing_of_that_name"):
        change.long_tests()
