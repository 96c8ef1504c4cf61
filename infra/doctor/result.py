"""Results of checks, running checks in parallel, and rendering. Standard library only: see `__main__`."""

from __future__ import annotations

import os
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

STATES = ("ok", "warning", "problem")
"""`warning`: it works, but slower or less safely than possible. `problem`: something does not work, or is unsafe."""

GIB = 1 << 30
NOT_FOUND = "not found"
"""`Finished.error` if the command does not exist."""

_SYMBOLS = {"ok": "✓", "warning": "!", "problem": "✗"}
_COLOURS = {"ok": "32", "warning": "33", "problem": "1;31"}


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    state: str
    """One of `STATES`."""
    found: str
    """What was found, in a few words."""
    remedy: str = ""
    """What to do about it; empty if it is ok."""


@dataclass(frozen=True)
class PendingCheck:
    """A check that has not run yet; it may give several results."""

    name: str
    run: Callable[[], list[Check]]
    timeout_seconds: float = 5.0
    """After this time it counts as failed, so that one that hangs does not delay the others."""
    remedy: str = "find out what hangs: a network file system, or a tool that waits for input"
    """What to do if it times out."""


@dataclass(frozen=True)
class Finished:
    """The result of a command."""

    code: int | None
    """Exit code. None: the command does not exist, or timed out."""
    output: str
    error: str = ""


Run = Callable[[Sequence[str], float], Finished]
"""Runs a command with a timeout in seconds."""


def run_command(command: Sequence[str], timeout_seconds: float) -> Finished:
    """A `Run` on this machine."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
        )
    except FileNotFoundError:
        return Finished(None, "", NOT_FOUND)
    except subprocess.TimeoutExpired:
        return Finished(None, "", f"timed out after {timeout_seconds:.0f} s")
    except OSError as error:
        return Finished(None, "", str(error))
    return Finished(done.returncode, done.stdout, done.stderr)


def run_checks(pending: Sequence[PendingCheck]) -> list[Check]:
    """Runs all in parallel; results in the order of `pending`. One that fails or times out becomes a problem."""
    results: dict[int, list[Check]] = {}

    def run(number: int, check: PendingCheck) -> None:
        try:
            results[number] = check.run()
        except OSError as error:
            remedy = "make it readable for this user, or set another path (HEADWATER_HOME, HEADWATER_STORE, TMPDIR)"
            results[number] = [Check(check.name, "problem", str(error), remedy)]
        except Exception as error:
            found = f"the check itself failed: {type(error).__name__}: {error}"
            results[number] = [Check(check.name, "problem", found, "please report this, with the line above")]

    # Daemon threads: one that hangs in a dead file system must not keep the command from exiting.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(pending)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    checks: list[Check] = []
    for number, (check, thread) in enumerate(zip(pending, threads)):  # noqa: B905 (older Pythons have no `strict`)
        thread.join(max(0.0, began + check.timeout_seconds - time.monotonic()))
        late = Check(check.name, "problem", f"timed out after {check.timeout_seconds:.0f} s", check.remedy)
        checks.extend(results.get(number, [late]))
    return checks


def exit_code(checks: Iterable[Check], strict: bool = False) -> int:
    """1 if there is a problem or, with `strict`, a warning; else 0."""
    bad = STATES[1:] if strict else STATES[2:]
    return int(any(check.state in bad for check in checks))


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The results as JSON: the number of checks by state, and every check."""
    rows = [{"name": c.name, "state": c.state, "found": c.found, "remedy": c.remedy} for c in checks]
    return {**{state: sum(c.state == state for c in checks) for state in STATES}, "checks": rows}


def render(checks: Sequence[Check], width: int, colour: bool, symbols: bool = True) -> str:
    """The results as a table: one line per check, and below each that is not ok its remedy."""
    name_width = max((len(check.name) for check in checks), default=0)
    state_width = max(map(len, STATES)) + (2 if symbols else 0)
    indent = " " * (state_width + 2 + name_width + 2)
    lines = []
    for check in checks:
        state = f"{_SYMBOLS[check.state]} {check.state}" if symbols else check.state
        state = _paint(state.ljust(state_width), _COLOURS[check.state], colour)
        found = _wrap(check.found, width, indent)
        lines.append(f"{state}  {check.name.ljust(name_width)}  {found[0].lstrip()}")
        lines.extend(found[1:])
        if check.remedy:
            lines.extend(_paint(line, "36", colour) for line in _wrap(f"→ {check.remedy}", width, indent, symbols))
    counts = {state: sum(check.state == state for check in checks) for state in STATES}
    parts = [f"{counts['problem']} problem{'s' * (counts['problem'] != 1)}"] if counts["problem"] else []
    parts += [f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}"] if counts["warning"] else []
    lines += ["", ", ".join([*parts, f"{counts['ok']} ok"])]
    return "\n".join(lines) + "\n"


def format_bytes(number: float) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / (1 << 20):.0f} MiB"


def nearest_existing(path: str) -> str:
    """The path, or its nearest parent that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _wrap(text: str, width: int, indent: str, symbols: bool = True) -> list[str]:
    text = text if symbols else text.replace("→", "->")
    # Words are never broken, so that commands and paths can be copied.
    return textwrap.wrap(
        text, max(width, len(indent) + 30), initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    ) or [indent]  # fmt: skip


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
