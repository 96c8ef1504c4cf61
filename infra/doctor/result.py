"""What a check finds, how checks run side by side, how their results look. Standard library only: see `__main__`."""

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
"""`warning`: it works, but slower or less safely than it could. `problem`: something will not work, or is unsafe."""

GIB = 1 << 30
NOT_FOUND = "not found"
"""`Finished.error` where there is no such command."""

_SYMBOLS = {"ok": "✓", "warning": "!", "problem": "✗"}
_COLOURS = {"ok": "32", "warning": "33", "problem": "1;31"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    """One of `STATES`."""
    found: str
    """What is there, in a few words."""
    mend: str = ""
    """What to do about it; empty when it is ok."""


@dataclass(frozen=True)
class Look:
    """A check that is yet to run; it may tell more than one thing."""

    name: str
    run: Callable[[], list[Check]]
    seconds: float = 5.0
    """It is given up after this time, so that nothing that hangs holds the others."""
    mend: str = "see what hangs: a file system on the network, or a tool that waits"


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int | None
    """None: there is no such command, or it did not end in time."""
    output: str
    error: str = ""


Read = Callable[[str], "str | None"]
"""The text of a file, None if it cannot be read."""

Run = Callable[[Sequence[str], float], Finished]
"""Runs a command for at most so many seconds."""


def read_text(path: str) -> str | None:
    """A `Read` of this machine's files."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def run_command(command: Sequence[str], seconds: float) -> Finished:
    """A `Run` on this machine."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except FileNotFoundError:
        return Finished(None, "", NOT_FOUND)
    except subprocess.TimeoutExpired:
        return Finished(None, "", f"did not end within {seconds:.0f} s")
    except OSError as error:
        return Finished(None, "", str(error))
    return Finished(done.returncode, done.stdout, done.stderr)


def run_looks(looks: Sequence[Look]) -> list[Check]:
    """Runs all side by side; results in the order of `looks`. One that fails or hangs is a problem of that name."""
    results: dict[int, list[Check]] = {}

    def run(number: int, look: Look) -> None:
        try:
            results[number] = look.run()
        except OSError as error:
            mend = "make it readable for this user, or choose another place (HEADWATER_HOME, HEADWATER_STORE, TMPDIR)"
            results[number] = [Check(look.name, "problem", str(error), mend)]
        except Exception as error:
            told = f"the check itself failed: {type(error).__name__}: {error}"
            results[number] = [Check(look.name, "problem", told, "please report this, with the line above")]

    # Daemons: a thread that hangs in a dead file system must not keep the command from ending.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(looks)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    checks: list[Check] = []
    for number, (look, thread) in enumerate(zip(looks, threads)):  # noqa: B905 (also runs on Pythons without `strict`)
        thread.join(max(0.0, began + look.seconds - time.monotonic()))
        late = [Check(look.name, "problem", f"no answer within {look.seconds:.0f} s", look.mend)]
        checks.extend(results.get(number, late))
    return checks


def exit_code(checks: Iterable[Check], strict: bool = False) -> int:
    """0: fine, or warnings only. 1: a problem; with `strict`, a warning too."""
    bad = STATES[1:] if strict else STATES[2:]
    return int(any(check.state in bad for check in checks))


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The results for other programs: how many of each state, and every check."""
    rows = [{"name": c.name, "state": c.state, "found": c.found, "mend": c.mend} for c in checks]
    return {**{state: sum(c.state == state for c in checks) for state in STATES}, "checks": rows}


def render(checks: Sequence[Check], width: int, colour: bool, symbols: bool = True) -> str:
    """The results as people read them: a line a check, and beneath what is not ok how to mend it."""
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
        if check.mend:
            lines.extend(_paint(line, "36", colour) for line in _wrap(f"→ {check.mend}", width, indent, symbols))
    counts = {state: sum(check.state == state for check in checks) for state in STATES}
    parts = [f"{counts['problem']} problem{'s' * (counts['problem'] != 1)}"] if counts["problem"] else []
    parts += [f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}"] if counts["warning"] else []
    lines += ["", ", ".join([*parts, f"{counts['ok']} ok"])]
    return "\n".join(lines) + "\n"


def size(number: float) -> str:
    """Bytes as people read them."""
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / (1 << 20):.0f} MiB"


def existing(path: str) -> str:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _wrap(text: str, width: int, indent: str, symbols: bool = True) -> list[str]:
    text = text if symbols else text.replace("→", "->")
    # A command or a path is copied whole, so words are never broken.
    return textwrap.wrap(
        text, max(width, len(indent) + 30), initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    ) or [indent]  # fmt: skip


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
