"""The budget of a run, and its last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.check.budget import Budget, reason_of, report
from tests.support import REPOSITORY

BUDGET = Budget(
    usual_loop_seconds=0.15,
    processor_share=0.8,
    wall=480,
    long_test=20,
    folders={"tests/a": 10.0, "tests/b/c": 50.0},
    full={"tests/a/test_long.py": 100.0},
)


def duration(call: float, setup: float = 0.0) -> dict[str, float]:
    return {"setup": setup, "call": call, "teardown": 0.0}


def test_what_the_processor_does_grows_with_its_slowness_and_waiting_does_not() -> None:
    assert BUDGET.scale(0.15) == 1
    assert BUDGET.scale(0.30) == pytest.approx(1.8)
    assert BUDGET.scale(0.10) < 1


def test_the_lines_hold_each_folder_against_its_budget_and_name_what_is_over() -> None:
    seconds = {
        "tests/a/test_x.py::test_1": duration(5, setup=4),
        "tests/a/test_y.py::test_2[p::q]": duration(0.5),
        **dict.fromkeys((f"tests/b/c/test_z.py::test_3[{n}]" for n in range(4)), duration(15)),
        "tests/b/c/deeper/test_d.py::test_5": duration(1),
        "tests/new/test_n.py::test_4": duration(1),
    }
    head, *lines = report(BUDGET, 0.15, 500, seconds)
    assert "0.150 s" in head and "1.00" in head
    by_folder = {line.split()[0]: line for line in lines}
    assert by_folder["tests/a"].split() == ["tests/a", "10", "of", "10"]  # 9.5, rounded to the even
    assert by_folder["tests/b/c"].split() == ["tests/b/c", "61", "of", "50", "OVER"]
    assert "no budget in tests/budget.toml" in by_folder["tests/new"]
    assert by_folder["wall"].endswith("OVER") and "500 of  480" in by_folder["wall"]


def test_a_slower_machine_may_take_longer() -> None:
    lines = report(BUDGET, 0.30, 650, {f"tests/b/c/test_z.py::test_3[{n}]": duration(15) for n in range(4)})
    assert not any("OVER" in line for line in lines)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of tests in which only `test_documented` documents why it is long."""
    file = tmp_path / "tests/a/test_long.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "def test_undocumented(): ...\n\nclass T:\n"
        '  def test_documented(self):\n    """Only this one.\n\n    More."""\n'
    )
    return tmp_path


def test_a_reason_is_the_first_line_of_the_docstring(written: Path) -> None:
    assert reason_of("tests/a/test_long.py::T::test_documented[1::2]", written) == "Only this one."
    assert reason_of("tests/a/test_long.py::test_undocumented", written) == ""


def test_long_tests_without_a_reason_are_named(written: Path) -> None:
    file = "tests/a/test_long.py"
    seconds = {f"{file}::test_undocumented": duration(21), f"{file}::T::test_documented": duration(30)}
    named = [line for line in report(BUDGET, 0.15, 60, seconds, written) if "docstring" in line]
    assert len(named) == 1 and f"{file}::test_undocumented takes 21 s" in named[0]
    waited = {f"{file}::test_undocumented": duration(5, setup=60)}  # for what other tests read too
    assert not [line for line in report(BUDGET, 0.15, 60, waited, written) if "docstring" in line]


def test_the_budget_has_a_line_for_every_folder_of_tests() -> None:
    budget = Budget.load()
    tests = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert {budget.folder(test) for test in tests} == set(budget.folders)
    assert [file for file in budget.full if not (REPOSITORY / file).is_file()] == []
