"""Do the tests notice when the code is wrong? Small faults, one at a time, and whether a test fails for each.

    python -m infra.check --coverage FOLDER                              which tests run which lines (once)
    python -m tests.mutants --seed 1 --count 60                          the faults, as a list
    python -m tests.mutants --seed 1 --count 60 --run FOLDER [--json FILE]

The faults are drawn from all folders of the code, as many from each, and are the same for one seed and one state of the
code. Each is written into the checkout, the tests that run its line are run, quickest first, until one fails, and the
file is put back: nothing else may work in this checkout meanwhile. What no test notices is printed as survived.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support import REPOSITORY

FOLDERS = ("flows", "serving", "stages", "models", "infra")
NOT_THE_HOUSE = ("infra/check/",)
"""What runs the tests, and is part of no installation."""
BARRIERS = ("barrier", "flush", "fsync", "gather", "join", "synchronize", "wait")
FLIPPED = {
    ast.Lt: ">=",
    ast.LtE: ">",
    ast.Gt: "<=",
    ast.GtE: "<",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
QUICK_SECONDS = 60.0
"""Of the tests of a line, those that take so long together are run first."""
UNKNOWN_TEST, NOTHING_COLLECTED = 4, 5
"""What pytest ends with where it does not know a test, and where it runs none."""
HANGS_SECONDS = 600
"""A test that takes longer has noticed: it would fail by its time limit."""


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, the characters from `begin` to `end` of line `line` (one line only) become `text`."""

    file: str
    line: int
    begin: int
    end: int
    text: str
    kind: str

    def apply(self, source: str) -> str:
        """The source with the fault in it; columns count UTF-8 bytes, as Python's parser does."""
        lines = source.splitlines(keepends=True)
        raw = lines[self.line - 1].encode()
        lines[self.line - 1] = (raw[: self.begin] + self.text.encode() + raw[self.end :]).decode()
        return "".join(lines)


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Every fault that can be put into one line of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPPED:
            left, right = node.left, node.comparators[0]
            if left.end_lineno == right.lineno and left.end_col_offset is not None:
                line = source.splitlines()[right.lineno - 1].encode()
                between = line[left.end_col_offset : right.col_offset].decode()
                if not set(between) & set("()"):  # an operand in brackets: unchanged
                    flipped = f" {FLIPPED[type(node.ops[0])]} "
                    yield Mutant(
                        file, right.lineno, left.end_col_offset, right.col_offset, flipped, "flipped comparison"
                    )
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.lineno == node.end_lineno:
            name = getattr(node.value.func, "attr", getattr(node.value.func, "id", ""))
            kind = "dropped barrier" if name.strip("_") in BARRIERS else "dropped call"
            yield Mutant(file, node.lineno, node.col_offset, node.end_col_offset or 0, "pass", kind)
        elif isinstance(node, ast.Raise) and node.lineno == node.end_lineno:
            yield Mutant(file, node.lineno, node.col_offset, node.end_col_offset or 0, "pass", "swallowed error")
        elif isinstance(node, ast.BinOp | ast.Subscript | ast.Call):
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.Constant) and type(part.value) is int and part.lineno == part.end_lineno:
                    yield Mutant(
                        file, part.lineno, part.col_offset, part.end_col_offset or 0, str(part.value + 1), "off by one"
                    )


def draw(seed: int, count: int) -> list[Mutant]:
    """As many from each folder as from the others, and of each kind as of the others."""
    rng, by_folder = random.Random(seed), defaultdict(lambda: defaultdict(list))
    for top in FOLDERS:
        for path in sorted((REPOSITORY / top).rglob("*.py")):
            file = str(path.relative_to(REPOSITORY))
            for mutant in () if file.startswith(NOT_THE_HOUSE) else mutants_of(file, path.read_text()):
                by_folder[str(path.parent.relative_to(REPOSITORY))][mutant.kind].append(mutant)
    drawn: list[Mutant] = []
    while len(drawn) < count:
        for folder in sorted(by_folder):
            kinds = by_folder[folder]
            kind = rng.choice(sorted(kinds))
            mutant = rng.choice(kinds[kind])
            if mutant not in drawn and len(drawn) < count:
                drawn.append(mutant)
    return drawn


def tests_of(mutant: Mutant, folder: Path) -> list[str]:
    """The tests that run a line, in whichever process, by the data of `infra.check --coverage`.

    Without data, as for lines that numba compiles, it is the folder of tests that mirrors the file's.
    """
    with sqlite3.connect(folder / "data") as data:
        rows = data.execute(
            "select distinct context.context from arc join file on file.id = arc.file_id "
            "join context on context.id = arc.context_id "
            "where file.path = ? and (abs(arc.fromno) = ? or abs(arc.tono) = ?)",
            (str(REPOSITORY / mutant.file), mutant.line, mutant.line),
        ).fetchall()
    names = {part.rpartition(" (")[0] if part.endswith(")") else part for (text,) in rows for part in text.split("|")}
    found = sorted(name for name in names if name.startswith("tests/"))
    if not found:
        mirror = REPOSITORY / "tests" / Path(mutant.file).parent
        while not mirror.is_dir():
            mirror = mirror.parent
        found = [str(mirror.relative_to(REPOSITORY))]
    return found


def notices(mutant: Mutant, tests: list[str], seconds: dict[str, float], quick_only: bool) -> str:
    """The first test that fails with the fault in place; empty if none does."""
    tests = sorted(tests, key=lambda test: seconds.get(test, 0.0))
    quick, sum_of_quick = [], 0.0
    for test in tests:
        sum_of_quick += seconds.get(test, 0.0)
        if sum_of_quick <= QUICK_SECONDS:
            quick.append(test)
    path = REPOSITORY / mutant.file
    source = path.read_text()
    try:
        path.write_text(mutant.apply(source))
        for chosen in (quick, [] if quick_only and quick else tests[len(quick) :]):
            # File by file, or the fixtures of a file would be set up, and fail, a second time.
            if chosen and (failed := _first_failure(sorted(chosen))):
                return failed
    finally:
        path.write_text(source)
    return ""


def _first_failure(tests: list[str]) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-m", "not full", f"--timeout={HANGS_SECONDS}"]
    done = subprocess.run([*command, *tests], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode == UNKNOWN_TEST:  # an id that the shell's words cannot say, or one that has gone: whole files
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        done = subprocess.run([*command, *files], cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode in (0, NOTHING_COLLECTED):
        return ""
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return named[0] if named else f"exit code {done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def main() -> None:
    """Lists the faults, or tries each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--only", type=int, nargs="*", metavar="N", help="numbers of faults, as listed")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="what `infra.check --coverage` was given")
    parser.add_argument(
        "--quick", action="store_true", help=f"only the tests of a line that fit into {QUICK_SECONDS:.0f} s"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    drawn = draw(options.seed, options.count)
    rows, seconds = [], {}
    if options.run and (options.run / "seconds.json").exists():
        taken = json.loads((options.run / "seconds.json").read_text())
        seconds = {test: sum(phases.values()) for test, phases in taken.items()}
    for number, mutant in enumerate(drawn):
        if options.only and number not in options.only:
            continue
        print(f"{number:3} {mutant.kind:<18} {mutant.file}:{mutant.line}  {_shown(mutant)}", flush=True)
        if options.run:
            tests = tests_of(mutant, options.run)
            noticed = notices(mutant, tests, seconds, options.quick)
            print(f"      {f'caught by {noticed}' if noticed else f'SURVIVED {len(tests)} tests'}", flush=True)
            rows.append({"number": number, **asdict(mutant), "tests": len(tests), "caught_by": noticed})
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    if options.run:
        print(f"{sum(bool(row['caught_by']) for row in rows)} of {len(rows)} caught")


def _shown(mutant: Mutant) -> str:
    """The faulty line."""
    return mutant.apply((REPOSITORY / mutant.file).read_text()).splitlines()[mutant.line - 1].strip()


if __name__ == "__main__":
    main()
