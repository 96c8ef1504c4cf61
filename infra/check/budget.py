"""Compares the durations of a test run with `tests/budget.toml`, scaled by the machine's speed; never fails a run."""

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
    """Seconds at the reference speed; the fields are those of `tests/budget.toml`, which documents them."""

    usual_loop_seconds: float
    processor_share: float
    wall: float
    long_test: float
    folders: Mapping[str, float]
    full: Mapping[str, float]

    @classmethod
    def load(cls, path: Path = REPOSITORY / "tests" / "budget.toml") -> Budget:
        """Reads the file."""
        return cls(**tomllib.loads(path.read_text()))

    def folder(self, test: str) -> str:
        """The folder that a test counts towards: its nearest parent with a budget, else its own folder."""
        own = PurePosixPath(test.partition("::")[0]).parent
        parents = (str(folder) for folder in (own, *own.parents) if str(folder) != "tests" or folder == own)
        return next((folder for folder in parents if folder in self.folders), str(own))

    def scale(self, loop_seconds: float) -> float:
        """Factor on the budget for a machine of this speed; less than 1 on one faster than the reference.

        Args:
            loop_seconds: as `infra.check.speed` measures them.
        """
        return 1 - self.processor_share + self.processor_share * loop_seconds / self.usual_loop_seconds


def report(budget: Budget, loop_seconds: float, wall: float, seconds: Seconds, root: Path = REPOSITORY) -> list[str]:
    """The last lines of a run: each folder's seconds beside its budget, and long tests without a reason."""
    scale = budget.scale(loop_seconds)
    spent: dict[str, float] = defaultdict(float)
    for test, phases in seconds.items():
        spent[budget.folder(test)] += sum(phases.values())
    lines = [
        "seconds of the tests, and their budget at this machine's speed "
        f"(a loop takes {loop_seconds:.3f} s: factor {scale:.2f})"
    ]
    for folder, used in sorted(spent.items()):
        limit = budget.folders.get(folder)
        allowed = "no budget in tests/budget.toml" if limit is None else f"of {limit * scale:4.0f}"
        over = "" if limit is None or used <= limit * scale else "  OVER"
        lines.append(f"  {folder:<28}{used:6.0f} {allowed}{over}")
    over = "" if wall <= budget.wall * scale else "  OVER"
    lines.append(f"  {'wall clock':<28}{wall:6.0f} of {budget.wall * scale:4.0f}{over}")
    long = budget.long_test * scale
    for test, phases in sorted(seconds.items(), key=lambda item: -item[1].get("call", 0.0)):
        if phases.get("call", 0.0) >= long and not reason_of(test, root):
            lines.append(
                f"  {test} takes {phases['call']:.0f} s ({long:.0f} s are long here): its docstring has to say what no "
                "shorter test shows"
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
