"""The faults that are put into the code to see whether the tests notice."""

from __future__ import annotations

import ast

from tests.mutants import Mutant, draw, mutants_of
from tests.support import REPOSITORY

SOURCE = """
def f(x, ä):
    if x < 3 and "é" in ä:
        raise ValueError(x)
    dist.barrier()
    emit(x)
    return x[1] + (2)
"""


def test_each_kind_of_fault_is_found_and_is_one_line() -> None:
    lines = {}
    for mutant in mutants_of("a.py", SOURCE):
        wrong = mutant.apply(SOURCE)
        ast.parse(wrong)
        lines.setdefault(mutant.kind, []).append(wrong.splitlines()[mutant.line - 1].strip())
        same = [a == b for a, b in zip(SOURCE.splitlines(), wrong.splitlines(), strict=True)]
        assert same.count(False) == 1
    assert sorted(lines["flipped comparison"]) == ['if x < 3 and "é" not in ä:', 'if x >= 3 and "é" in ä:']
    assert lines["swallowed error"] == lines["dropped barrier"] == lines["dropped call"] == ["pass"]
    assert sorted(lines["off by one"]) == ["return x[1] + (3)", "return x[2] + (2)"]


def test_one_seed_draws_the_same_faults_from_every_folder() -> None:
    drawn = draw(1, 60)
    assert drawn == draw(1, 60) and len(set(drawn)) == 60
    assert drawn != draw(2, 60)
    assert {mutant.file.partition("/")[0] for mutant in drawn} == {"flows", "serving", "stages", "models", "infra"}
    assert {mutant.kind for mutant in drawn} >= {
        "flipped comparison",
        "swallowed error",
        "off by one",
        "dropped barrier",
    }
    for mutant in drawn:
        ast.parse(mutant.apply((REPOSITORY / mutant.file).read_text()))


def test_columns_are_bytes() -> None:
    assert Mutant("a.py", 1, 6, 7, "2", "off by one").apply("é = [1]\n") == "é = [2]\n"
