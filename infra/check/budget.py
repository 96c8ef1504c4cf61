"""The run's own seconds held against `tests/budget.toml`, scaled by the machine's rate. Nothing fails for it."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra.settings import REPOSITORY

Seconds = Mapping[str, Mapping[str, float]]
"""By test and phase (setup, call, teardown), as `infra.check.record` writes them."""


@dataclass(frozen=True)
class Budget:
    """Seconds at the usual speed; the fields are those of `tests/budget.toml`, which tells what they mean."""

    usual_gflops: float
    computing_share: float
    wall: float
    long_test: float
    folders: Mapping[str, float]
    full: Mapping[str, float]

    @classmethod
    def load(cls, path: Path = REPOSITORY / "tests" / "budget.toml") -> Budget:
        """Reads the file."""
        return cls(**tomllib.loads(path.read_text()))

    def folder(self, test: str) -> str:
        """The folder that a test counts for: the nearest above it that has a line, or its own where none has."""
        own = PurePosixPath(test.partition("::")[0]).parent
        above = (str(folder) for folder in (own, *own.parents) if str(folder) != "tests" or folder == own)
        return next((folder for folder in above if folder in self.folders), str(own))

    def scale(self, gflops: float) -> float:
        """How many times the usual seconds a machine of this rate may take; less than 1 on a faster one."""
        return 1 - self.computing_share + self.computing_share * self.usual_gflops / gflops


def report(budget: Budget, gflops: float, wall: float, seconds: Seconds, root: Path = REPOSITORY) -> list[str]:
    """The lines that close a run: each folder's seconds beside its budget, what is over, and what is long."""
    scale = budget.scale(gflops)
    spent: dict[str, float] = defaultdict(float)
    for test, phases in seconds.items():
        spent[budget.folder(test)] += sum(phases.values())
    lines = [
        f"seconds of the tests, and the budget at this machine's rate ({gflops:.0f} GFLOP/s: {scale:.2f} of usual)"
    ]
    for folder, used in sorted(spent.items()):
        given = budget.folders.get(folder)
        room = "no budget in tests/budget.toml" if given is None else f"of {given * scale:4.0f}"
        over = "" if given is None or used <= given * scale else "  OVER"
        lines.append(f"  {folder:<28}{used:6.0f} {room}{over}")
    over = "" if wall <= budget.wall * scale else "  OVER"
    lines.append(f"  {'from first to last':<28}{wall:6.0f} of {budget.wall * scale:4.0f}{over}")
    limit = budget.long_test * scale
    for test, phases in sorted(seconds.items(), key=lambda item: -item[1].get("call", 0.0)):
        if phases.get("call", 0.0) >= limit and not reason_of(test, root):
            lines.append(
                f"  {test} takes {phases['call']:.0f} s ({limit:.0f} are long here): its docstring does not say what "
                "no shorter one shows"
            )
    return lines


def reason_of(test: str, root: Path = REPOSITORY) -> str:
    """The first line of a test's docstring; empty if it has none.

    Args:
        test: its node id, `tests/folder/test_file.py::test_name[parameters]`.
    """
    file, _, name = test.partition("::")
    name = name.partition("[")[0].rpartition("::")[2]
    for node in ast.walk(ast.parse((root / file).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""
