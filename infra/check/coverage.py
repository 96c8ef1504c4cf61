"""Branch coverage of the tests by folder, in all their processes: `python -m infra.check --coverage FOLDER`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.settings import REPOSITORY

CONFIG = REPOSITORY / "pyproject.toml"


@contextmanager
def measure(folder: Path) -> Iterator[None]:
    """Within the `with` block every Python process that starts writes its coverage, by test, to the folder.

    A process that is killed writes nothing, so lines that only such a process ran count as not covered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"COVERAGE_PROCESS_START": str(CONFIG), "COVERAGE_DATA": str(folder / "data")}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def report_by_folder(folder: Path) -> list[str]:
    """One line per folder of the code: percentage of its lines and branches.

    Args:
        folder: the argument of `measure`. The combined data, contexts included, are written to its file `data`.
    """
    data = folder / "data"
    _coverage("combine", "--keep", f"--data-file={data}", str(folder))
    report = folder / "report.json"
    _coverage("json", f"--data-file={data}", "-o", str(report), "--quiet")
    covered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for file, found in json.loads(report.read_text())["files"].items():
        summary, name = found["summary"], file.rpartition("/")[0]
        covered[name] += summary["covered_lines"] + summary["covered_branches"]
        total[name] += summary["num_statements"] + summary["num_branches"]
    lines = [f"{name:<28}{100 * covered[name] / total[name]:6.1f} %" for name in sorted(total) if total[name]]
    return [*lines, f"{'all':<28}{100 * covered.total() / total.total():6.1f} %"]


def _coverage(*arguments: str) -> None:
    command = [sys.executable, "-m", "coverage", *arguments]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
