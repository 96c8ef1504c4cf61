"""Which branches the tests take, by folder, in whichever process: `python -m infra.check --coverage FOLDER`."""

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
def measured(folder: Path) -> Iterator[None]:
    """Inside, every Python process that is started writes what it ran below the folder, and for which test.

    A process that is killed writes nothing, so what only such a one ran does not count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"COVERAGE_PROCESS_START": str(CONFIG), "COVERAGE_DATA": str(folder / "data")}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def by_folder(folder: Path) -> list[str]:
    """A line for each folder of the code: percent of its lines and branches together.

    Args:
        folder: what `measured` was given. The data are combined in its file `data`, contexts included.
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
