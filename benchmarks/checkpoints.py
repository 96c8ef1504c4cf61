"""What a checkpoint costs a training and how fast it comes back, beside PyTorch's distributed checkpoints.

    .venv/bin/python benchmarks/checkpoints.py [--json FILE] [--rounds 3] [--size 125m]

One process trains a model of the size with AdamW on random tokens (weights and averages: 1.6 GB at 125m). In each
round, in turn:

- ours, once with a new checkpointer (the first save) and once again: seconds that the training waits in and for the
  save (`save`, `wait_copied`, `commit`), beside copying the same bytes into touched memory;
- PyTorch's `dcp.async_save` and `dcp.save` of the same tensors, the seconds that they block;
- 20 steps with one save among them, and 20 without, four times in turn: what the save costs, beside the processor
  time of hashing and writing the same bytes once;
- steps with checkpoints in memory at the derived interval, and as many without;
- restoring from memory, beside reading those bytes; from an object store (moto's S3), beside downloading them.

Ratios of one round count, medians over the rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from spread import spread
from torch import Tensor

from models.decoder import Decoder
from models.sizes import config_for_size
from stages.ports import free_port
from stages.store import Store
from stages.training.checkpoint.checkpointer import Checkpointer
from stages.training.checkpoint.interval import MEMORY_SHARE
from stages.training.checkpoint.memory_tier import ROOT_VARIABLE
from stages.training.config import CheckpointConfig, OptimizerConfig, ScheduleConfig
from stages.training.optim.optimizers import Optimizers, build_optimizers
from stages.training.optim.schedule import LearningRateSchedule
from stages.training.parallelism.ranks import Ranks, parallelize

TARGETS = {
    "blocked_over_memcpy": 1.2,
    "save_cost_over_floor": 1.3,
    "bytes_over_state": 1.02,
    "memory_tier_overhead": 0.01,
    "restore_memory_over_read": 1.5,
    "restore_store_over_download": 1.3,
    "blocked_over_dcp_async": 0.2,
}
STEPS, PAIRS = 20, 4
VOCABULARY, TOKENS = 32_000, 64


class Training:
    """A model and its optimizers, and steps of them on random tokens."""

    def __init__(self, size: str, checkpointer: Callable[[Training], Checkpointer] | None = None):
        self.ranks = Ranks(0, 1, 1, torch.device("cpu"))
        shape = config_for_size(size, VOCABULARY, TOKENS)
        with torch.device("meta"):
            self.model = Decoder(shape, 0, torch.float32)
        parallelize(self.model, self.ranks, 0)
        schedule = LearningRateSchedule(ScheduleConfig(), 1e-4, 1_000_000)
        self.optimizers: Optimizers = build_optimizers(
            self.model, OptimizerConfig(name="adamw"), schedule, torch.float32
        )
        self.tokens = torch.randint(0, VOCABULARY, (1, TOKENS + 1))
        self.number = 0

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"weight.{name}": p.detach() for name, p in self.model.named_parameters()}
        return weights | self.optimizers.state_tensors(self.model)

    def gradients(self) -> None:
        loss, _ = self.model(self.tokens[:, :-1], self.tokens[:, 1:], 1.0 / TOKENS, 0.0)
        loss.backward()

    def update(self) -> None:
        self.optimizers.step(self.number)
        self.optimizers.zero_grad()
        self.number += 1


@contextmanager
def _checkpointer(training: Training, store: Store, **changes: Any) -> Iterator[Checkpointer]:
    """A new one, as a run's start makes it."""
    config = CheckpointConfig(**({"every_steps": 1_000_000, "memory_every_steps": 1_000_000, "keep": 1} | changes))
    found = Checkpointer(store, "run/checkpoints", training.ranks, config, lambda *_, **__: None)
    found.prepare(training.tensors(), None)
    try:
        yield found
    finally:
        found._drain()
        found._close_threads()


def _steps(training: Training, checkpoints: Checkpointer, count: int, save_at: Callable[[int], str]) -> list[float]:
    """Steps as the loop makes them; returns the seconds that each waited for checkpoints."""
    waits = []
    for number in range(count):
        kind = save_at(number)
        began = time.perf_counter()
        if checkpoints.finished_writing:
            checkpoints.commit()
        if kind:
            checkpoints.save(training.number, dict, durable=kind == "durable")
        waited = time.perf_counter() - began
        training.gradients()
        began = time.perf_counter()
        checkpoints.wait_copied()
        waits.append(waited + time.perf_counter() - began)
        training.update()
    return waits


def _blocked(training: Training, store: Store) -> tuple[float, float]:
    """Seconds that the training waits in and for a save: the first one of a new checkpointer, and the next."""
    found = []
    with _checkpointer(training, store) as checkpoints:
        for _ in range(2):
            waits = _steps(training, checkpoints, 3, lambda number: "durable" if number == 0 else "")
            while not checkpoints.finished_writing and checkpoints.pending_step is not None:
                time.sleep(0.01)  # a training would go on
            began = time.perf_counter()
            checkpoints.commit()
            found.append(sum(waits) + time.perf_counter() - began)
    return found[0], found[1]


def _copy(tensors: dict[str, Tensor]) -> Callable[[], float]:
    """Copies the bytes into memory that is touched; returns the seconds."""
    target = torch.zeros(sum(t.numel() * t.element_size() for t in tensors.values()), dtype=torch.uint8)

    def copy() -> float:
        began, offset = time.perf_counter(), 0
        for tensor in tensors.values():
            size = tensor.numel() * tensor.element_size()
            ctypes.memmove(target.data_ptr() + offset, tensor.data_ptr(), size)
            offset += size
        return time.perf_counter() - began

    return copy


def _floor(tensors: dict[str, Tensor], folder: Path) -> float:
    """Processor seconds of hashing and writing the bytes once."""
    began = time.process_time()
    with (folder / "floor").open("wb", buffering=0) as file:
        total = hashlib.sha256()
        for tensor in tensors.values():
            view = memoryview(tensor.view(-1).view(torch.uint8).numpy()).cast("B")
            for start in range(0, len(view), 1 << 20):
                chunk = view[start : start + (1 << 20)]
                total.update(chunk)
                file.write(chunk)
    seconds = time.process_time() - began
    (folder / "floor").unlink()
    return seconds


def _dcp(training: Training, folder: Path, wait: bool) -> float:
    """Seconds that PyTorch's save blocks."""
    import torch.distributed.checkpoint as dcp

    path = folder / "dcp"
    shutil.rmtree(path, ignore_errors=True)
    writer = dcp.FileSystemWriter(path)
    began = time.perf_counter()
    if wait:
        dcp.save(training.tensors(), storage_writer=writer, no_dist=True)
        seconds = time.perf_counter() - began
    else:
        future: Any = dcp.async_save(training.tensors(), storage_writer=writer, no_dist=True)
        seconds = time.perf_counter() - began
        future.result()
    shutil.rmtree(path)
    return seconds


def _timed_steps(training: Training, store: Store, save_at: Callable[[int], str], **changes: Any) -> float:
    """Seconds of `STEPS` steps and of what is still to be written after them."""
    with _checkpointer(training, store, **changes) as checkpoints:
        _steps(training, checkpoints, 1, lambda number: "")
        began = time.perf_counter()
        _steps(training, checkpoints, STEPS, save_at)
        checkpoints.commit()
        return time.perf_counter() - began


def _memory_overhead(training: Training, store: Store) -> float:
    """Share of the time that checkpoints in memory at the derived interval cost: what one costs, over its interval."""
    with _checkpointer(training, store, memory_every_steps="auto") as checkpoints:
        _steps(training, checkpoints, 1, lambda number: "")
        plain, saving = [], []
        for _ in range(5):
            plain.append(_time(lambda: _steps(training, checkpoints, 2, lambda number: "")))
            saving.append(
                _time(lambda: _steps(training, checkpoints, 2, lambda number: "memory" if number == 0 else ""))
            )
            checkpoints.commit()
        return max(0.0, median(saving) - median(plain)) / checkpoints.timetable.memory_seconds


def _time(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _restore(training: Training, store: Store) -> tuple[float, str]:
    """Seconds to find and load the newest checkpoint, and the tier that it came from."""
    tensors = training.tensors()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.zero_()
    config = CheckpointConfig(every_steps=1)
    began = time.perf_counter()
    checkpoints = Checkpointer(store, "run/checkpoints", training.ranks, config, lambda *_, **__: None)
    found = checkpoints.finder.next()
    assert found is not None and checkpoints.finder.load(found, tensors), checkpoints.finder.refusals
    seconds = time.perf_counter() - began
    checkpoints._close_threads()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.items()), "restored other bits"
    return seconds, found.candidate.tier


def _read(folder: Path) -> float:
    """Seconds to read the files of a checkpoint into memory that is touched."""
    paths = [path for path in folder.iterdir() if path.suffix == ".safetensors"]
    buffers = [bytearray(path.stat().st_size) for path in paths]
    began = time.perf_counter()
    for path, buffer in zip(paths, buffers, strict=True):
        with path.open("rb", buffering=0) as file:
            file.readinto(buffer)
    return time.perf_counter() - began


def _download(store: Store, folder: Path) -> float:
    """Seconds to download a checkpoint's files, side by side."""
    name = sorted(store.folders("run/checkpoints"))[-1]
    began = time.perf_counter()
    store.fs.get(store.path(name), str(folder / "download"), recursive=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder / "download")
    return seconds


@contextmanager
def _object_store() -> Iterator[str]:
    """A bucket on moto's S3, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        import s3fs

        for _ in range(200):
            try:
                s3fs.S3FileSystem().mkdir("checkpoints")
                break
            except OSError:
                time.sleep(0.1)
        yield "s3://checkpoints/store"
    finally:
        server.kill()
        server.wait()


def _round(training: Training, folder: Path, url: str) -> dict[str, float]:
    """One round's ratios and seconds."""
    tensors = training.tensors()
    state = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    store = Store(folder / "store")
    copy = min(_copy(tensors)() for _ in range(3))
    first, next_one = _blocked(training, store)
    dcp_async, dcp_sync = (_dcp(training, folder, wait) for wait in (False, True))
    floor = min(_floor(tensors, folder) for _ in range(2))
    plain, costs = [], []
    for number in range(PAIRS):
        seconds = {}
        for kind in ("", "durable") if number % 2 == 0 else ("durable", ""):
            seconds[kind] = _timed_steps(training, store, lambda step, kind=kind: kind if step == 1 else "")
        plain.append(seconds[""])
        costs.append(seconds["durable"] - seconds[""])
    with _checkpointer(training, store) as checkpoints:
        checkpoints.save(training.number, dict, wait=True)
        written = sum(path.stat().st_size for path in checkpoints.disk.glob(f"step-{training.number:08}/*"))
        read = min(_read(checkpoints.slots.folder / "slot-0") for _ in range(2))  # type: ignore[operator]
    memory, tier = _restore(training, store)
    assert tier == "memory", tier
    shutil.rmtree(os.environ[ROOT_VARIABLE])
    os.makedirs(os.environ[ROOT_VARIABLE])
    overhead = _memory_overhead(training, store)
    shutil.rmtree(store.root)
    shutil.rmtree(os.environ[ROOT_VARIABLE])
    os.makedirs(os.environ[ROOT_VARIABLE])
    remote = Store(url)
    with _checkpointer(training, remote, memory_every_steps=0) as checkpoints:
        checkpoints.save(training.number, dict, wait=True)
        shutil.rmtree(checkpoints.disk)
    download = min(_download(remote, folder) for _ in range(2))
    restored, tier = _restore(training, remote)
    assert tier == "store", tier
    remote.remove("run")
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    return {
        "blocked_over_memcpy": max(first, next_one) / copy,
        "save_cost_over_floor": median(costs) / floor,
        "bytes_over_state": written / state,
        "memory_tier_overhead": overhead,
        "restore_memory_over_read": memory / read,
        "restore_store_over_download": restored / download,
        "blocked_over_dcp_async": max(first, next_one) / dcp_async,
        "seconds/copy": copy,
        "seconds/blocked_first": first,
        "seconds/blocked_next": next_one,
        "seconds/dcp_async_blocks": dcp_async,
        "seconds/dcp_sync_blocks": dcp_sync,
        "seconds/floor": floor,
        "seconds/steps": median(plain),
        "seconds/save_costs": median(costs),
        "seconds/restore_memory": memory,
        "seconds/read_memory": read,
        "seconds/restore_store": restored,
        "seconds/download": download,
        "gigabytes": state / 1e9,
    }


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="125m")
    options = parser.parse_args()
    console = Console(width=120)
    with (
        tempfile.TemporaryDirectory(prefix="headwater-benchmark-") as folder,
        tempfile.TemporaryDirectory(prefix="headwater-benchmark-", dir="/dev/shm") as memory,
        _object_store() as url,
    ):
        os.environ |= {ROOT_VARIABLE: memory, "XDG_CACHE_HOME": f"{folder}/cache"}
        training = Training(options.size)
        training.gradients()
        training.update()
        rounds = []
        for number in range(options.rounds):
            with console.status(f"round {number + 1} of {options.rounds} ..."):
                rounds.append(_round(training, Path(folder), url))
    found = {name: spread([one[name] for one in rounds]) for name in rounds[0]}
    table = Table("", "median", "least", "most", "target")
    for name, values in found.items():
        target = f"<= {TARGETS[name]}" if name in TARGETS else ""
        table.add_row(name, *(f"{values[key]:.4g}" for key in ("median", "least", "most")), target)
    console.print(table)
    console.print(
        f"{found['gigabytes']['median']:.2f} GB of weights and averages; a checkpoint in memory may cost "
        f"{MEMORY_SHARE:.1%} of the time"
    )
    if options.json:
        record = {"machine": machine(), "versions": versions(["torch", "xxhash"], [], Path(sys.executable))}
        options.json.write_text(json.dumps(record | {"targets": TARGETS, "results": found}, indent=1))


if __name__ == "__main__":
    main()
