"""Pipeline steps for tests of executors. Workers import them by name, so they stand in a file of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from stages.store import InputError


class Numbers(PipelineStep):
    """Yields `count` documents a rank."""

    name, type = "Numbers", "test"

    def __init__(self, count: int = 3):
        super().__init__()
        self.count = count

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for i in range(self.count):
            self.stat_update("documents")
            yield Document(text=f"rank {rank} of {world_size}", id=f"{rank}/{i}")


class WriteIds(PipelineStep):
    """Writes the ids that arrive, and how many ranks this copy of the step has seen, to `{folder}/{rank}`."""

    name, type = "WriteIds", "test"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.seen = folder, [0]

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        self.seen[0] += 1
        lines = []
        for document in data:
            lines.append(f"{document.id} {document.text} {self.seen[0]}\n")
            yield document
        (self.folder / str(rank)).write_text("".join(lines))


class Together(PipelineStep):
    """Waits, before the steps in front of it are asked for anything, until so many processes have a rank."""

    name, type = "Together", "test"

    def __init__(self, folder: Path, count: int = 2):
        super().__init__()
        self.folder, self.count = folder, count

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        (self.folder / f"at-work.{os.getpid()}").touch()
        deadline = time.monotonic() + 200
        while len(list(self.folder.glob("at-work.*"))) < self.count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield from data or ()


IN_WORKER = -2


class Fail(PipelineStep):
    """Ends in one of several ways at one rank, or (`IN_WORKER`) at the first that a worker process has; others take
    `seconds`."""

    name, type = "Fail", "test"

    def __init__(self, rank: int, way: str, seconds: float = 0, folder: Path | None = None):
        super().__init__()
        self.rank, self.way, self.seconds, self.folder = rank, way, seconds, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if self.folder:
            (self.folder / f"{rank}.{os.getpid()}").touch()
        if rank == self.rank or (self.rank == IN_WORKER and multiprocessing.parent_process()):
            if self.way == "input":
                raise InputError("corpus: what.jsonl:7 is no document")
            if self.way == "odd":
                raise OddError("odd", 7)
            if self.way == "value":
                raise ValueError("no number")
            if self.way == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "die once" and self.folder and len(list(self.folder.glob(f"{rank}.*"))) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "end":
                return
        time.sleep(self.seconds)
        yield from data or ()


class OddError(Exception):
    """One that can be pickled and not unpickled."""

    def __init__(self, name: str, number: int):
        super().__init__(f"{name} {number}")


class WriteModules(PipelineStep):
    """Writes which large modules the process has, its pid and its parent's."""

    name, type = "WriteModules", "test"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        large = ("torch", "transformers", "spacy", "ray", "prefect", "mlflow")
        found = " ".join(name for name in large if name in sys.modules)
        (self.folder / str(rank)).write_text(f"{os.getpid()} {os.getppid()} {found}")
        yield from data or ()


def import_nothing_more() -> None:
    """What a worker of these tests does first: `stages.corpus.build`, which a real one imports then, is not used."""
