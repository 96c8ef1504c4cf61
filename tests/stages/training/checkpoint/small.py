"""A run of a few small tensors that writes, damages and restores checkpoints, without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.store import Store
from stages.training.checkpoint.checkpointer import Checkpointer
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.restoring import Found
from stages.training.config import CheckpointConfig
from stages.training.parallelism.ranks import Ranks

FOLDER = "run/checkpoints"
ALONE = Ranks(0, 1, 1, torch.device("cpu"))
WEIGHTS, OPTIMIZER = "weights-00000-00000.safetensors", "optimizer-00000-00000.safetensors"


def values(step: int) -> dict[str, Tensor]:
    """What the tensors of the run are at a step."""
    dice = torch.Generator().manual_seed(step)
    return {
        "weight.a": torch.randn(7, 5, generator=dice),
        "weight.b": torch.randn(3, 2, 2, generator=dice).to(torch.bfloat16),
        "average.a": torch.randn(7, 5, generator=dice),
        "average.count": torch.tensor(step),
    }


def bits(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


class Small:
    """One process's part in the run, from its start.

    Args:
        wrap: makes this rank's tensors of the whole ones.
    """

    def __init__(
        self,
        store: Store,
        ranks: Ranks = ALONE,
        accept: Callable[[Mapping[str, Any]], str] = lambda state: "",
        wrap: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
        **config: Any,
    ):

        def read(state: Mapping[str, Any]) -> Mapping[str, Any]:
            if reason := accept(state):
                raise ValueError(reason)
            return state

        self.events: list[tuple[str, dict[str, Any]]] = []
        self.wrap, self.tensors = wrap, wrap(values(0))
        settings = CheckpointConfig(**({"memory_every_steps": 0} | config))
        self.checkpoints = Checkpointer(store, FOLDER, ranks, settings, self._emit, read)

    def _emit(self, type: str, **fields: Any) -> None:
        self.events.append((type, fields))

    def messages(self, type: str) -> list[str]:
        return [str(fields.get("message", fields)) for kind, fields in self.events if kind == type]

    @property
    def refused(self) -> dict[str, str]:
        """Reason by file."""
        return {one.file: one.reason for one in self.checkpoints.finder.refusals}

    def restore(self) -> Found | None:
        """Begins as the training does."""
        finder = self.checkpoints.finder
        found = finder.next()
        while found is not None and not finder.load(found, self.tensors):
            found = finder.next()
        if found is None:
            finder.refuse_all()
        self.checkpoints.prepare(self.tensors, found)
        return found

    def save(self, step: int, *, durable: bool = True, wait: bool = True) -> None:
        """The tensors become those of a step, and are saved."""
        for name, value in self.wrap(values(step)).items():
            self.tensors[name].copy_(value)
        self.checkpoints.save(step, lambda: {"step": step}, durable=durable, wait=wait)
        self.checkpoints.wait_copied()
        if not durable:
            self.checkpoints.commit()

    def leave(self) -> None:
        """The process ends, the run does not."""
        self.checkpoints._close_threads()


def written(store: Store, *steps: int, **config: Any) -> Path:
    """The folder of a run that has saved these steps."""
    run = Small(store, **({"keep": 9} | config))
    run.restore()
    for step in steps:
        run.save(step)
    run.leave()
    return run.checkpoints.disk


def restored(store: Store, **options: Any) -> tuple[int | None, Small]:
    """The step from which a new process goes on, whose bits are compared; None at the start."""
    run = Small(store, **options)
    found = run.restore()
    run.leave()
    if found is not None:
        assert bits(run.tensors) == bits(values(found.step)) and found.state == {"step": found.step}
    return (found.step if found else None), run


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def rewrite(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    """Changes a JSON record in a checkpoint as somebody would who may write to the store: the checksum fits again."""
    record = json.loads((folder / name).read_bytes())
    change(record)
    data = json.dumps(record).encode()
    (folder / name).write_bytes(data)
    if name != MANIFEST:

        def correct(manifest: Any) -> None:
            entry = next(entry for entry in manifest["files"] if entry["path"] == name)
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        rewrite(folder, MANIFEST, correct)


def folder_of(disk: Path, step: int) -> Path:
    return disk / step_folder(step)
