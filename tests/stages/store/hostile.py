"""What someone who may write to the store might put into its records, and where a process writes when it reads them.

`python -m tests.stages.store.hostile 100000` tries that many mutations of each record; `... 100000 indices` of those
whose name has that word.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.store import HeadwaterError

PATHS = [
    "/abs", "..", "../x", "a/../../x", "", ".", "a//b", "a/", "~/x", "$HOME/x", "file:///x", "s3://b/x", "*", "[a]",
    "C:\\x", "C:/x", "..\\x", "a\\b", "\\\\host\\x", "x\0y", "x\ny", "x\x1b[2J", "x\u202ey", "\ud800", "x.", "x..",
    "x" * 300, "y/" * 400 + "y", "é", "e\u0301", "A", "a", "a/b", "manifest.json", "lease-0", "events.jsonl", "?",
    ".scratch/x", "x ", "sitecustomize.py", "../../lib/evil.pth", "%2e%2e/x", "weights/../../../x", "CON", "nul.txt",
]  # fmt: skip
"""Paths that mean something else on some machine, beside harmless ones that collide with one another."""
VALUES = [None, True, 0, -1, 1 << 70, 1e308, float("nan"), float("inf"), "", [], {}, [[]], {"x": {}}, "9" * 5000]


def mutate(record: Any, dice: random.Random) -> bytes:
    """A record in which one to three values, keys or bytes are others."""
    record = copy.deepcopy(record)
    for _ in range(dice.randrange(1, 4)):
        holder, key = dice.choice([*_places(record)])
        choice = dice.random()
        if choice < 0.6:
            holder[key] = dice.choice(PATHS)
        elif choice < 0.85:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
        elif choice < 0.9 and isinstance(holder, dict):
            holder[dice.choice(PATHS)] = holder.pop(key)
        else:
            del holder[key]
            if not record:
                break
    data = json.dumps(record).encode()
    if dice.random() < 0.1:
        at = dice.randrange(len(data))
        data = data[:at] + bytes([dice.randrange(256)]) + data[at + dice.randrange(3) :]
    return b"[" * 100_000 if dice.random() < 0.002 else data


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


_WRITES = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.truncate": (0,), "os.chmod": (0,), "os.utime": (0,),
    "os.rename": (0, 1), "os.link": (0, 1), "os.symlink": (0, 1), "shutil.rmtree": (0,),
}  # fmt: skip
"""Audit events that change the file system, and which of their arguments are paths."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_written: list[str] | None = None
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _written is None:
        return
    if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & _WRITING:
        _written.append(os.fsdecode(arguments[0]))
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
        return  # relative to an open folder: a part of `shutil.rmtree`, which has an event of its own
    for number in _WRITES.get(event, ()):
        if isinstance(arguments[number], str | bytes | os.PathLike):
            _written.append(os.fsdecode(arguments[number]))


@contextmanager
def written_paths() -> Iterator[list[str]]:
    """The paths that this process creates, changes or removes in the block, as Python's audit events name them."""
    global _written, _watching
    if not _watching:
        sys.addaudithook(_audit)  # there is no way to remove one
        _watching = True
    _written = found = []
    try:
        yield found
    finally:
        _written = None


def check_reader(
    record: Any, read: Callable[[bytes], object], inside: list[Path], count: int, seed: int = 0
) -> tuple[int, int]:
    """Reads mutations of a record; returns how many were refused and how many accepted.

    Raises:
        AssertionError: one raised another error than a HeadwaterError with a message, or wrote outside of `inside`.
    """
    dice, refused = random.Random(seed), 0
    roots = tuple(os.path.realpath(folder) + os.sep for folder in inside)
    for number in range(count):
        data = mutate(record, dice)
        with written_paths() as written:
            try:
                read(data)
            except HeadwaterError as error:
                refused += 1
                assert str(error).strip(), data
            except Exception as error:
                raise AssertionError(f"mutation {number}: {data[:2000]!r} raised {error!r}") from error
        outside = [path for path in written if not (os.path.realpath(path) + os.sep).startswith(roots)]
        assert not outside, f"mutation {number}: {data[:2000]!r} wrote {outside}"
    return refused, count - refused


def main(count: int, only: str = "") -> None:
    """Tries `count` mutations of each record of the store, and prints what became of them.

    Args:
        only: part of the names of the records that are tried.
    """
    import tempfile

    from tests.stages.store.test_hostile_records import READERS
    from tests.stages.training.checkpoint.test_hostile_checkpoints import READERS as CHECKPOINTS

    for name, reader in (READERS | CHECKPOINTS).items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            refused, accepted = check_reader(*reader(Path(folder)), count)
        print(f"{name}: {refused:,} refused, {accepted:,} accepted, nothing written outside", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:3])
