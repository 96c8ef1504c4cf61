"""Seconds from a command to the first new step of a training that was killed, by phase.

    .venv/bin/python benchmarks/resume.py [--json FILE] [--size 7m] [--train-seconds 40]

Runs `headwater run` in a fresh state folder on free ports. In training it is killed with SIGKILL, and all its processes
with it, and started again: that is *killed*. Then it is killed once more, everything but the store is deleted (state
folder, caches, memory), and it is started with one worker less: that is *moved*. The phases:

- start: from the command to the training stage: the program, services, stages that are found finished;
- group: Ray and its workers, until they know what to do;
- join: the workers find each other and measure the machine;
- restore: the checkpoint is found, verified and loaded, and memory for the next ones is touched;
- step: the first step;
- replay: further steps that the killed attempt had made already.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from machine import machine
from pipeline import environment
from rich.console import Console
from rich.table import Table

HEADWATER = Path(sys.executable).with_name("headwater")
PHASES = ("start", "group", "join", "restore", "step", "replay")
SETTINGS = {
    "sample.megabytes": 1,
    "tokens.vocab_size": 2048,
    "training.steps": 1_000_000,
    "training.data.global_batch_size": 8,
    "training.validation.every_steps": 1_000_000,
    "training.checkpoint.every_steps": 40,
}
WAIT_SECONDS = 900.0
SERVICES = ("prefect", "prefect-worker", "mlflow", "gateway")


class Training:
    """The one training of an installation, seen through its events."""

    def __init__(self, folder: Path, size: str):
        self.folder = folder
        self.env = environment(folder) | {
            "HEADWATER_STORE": str(folder / "store"),
            "HEADWATER_MEMORY_FOLDER": str(folder / "memory"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self.settings = SETTINGS | {"training.model.size": size}
        self._seen = 0

    def events(self) -> list[dict[str, Any]]:
        """All events of the run so far."""
        logs = [*(self.folder / "store").glob("training/*/events.jsonl")]
        if not logs:
            return []
        return [json.loads(line) for line in logs[0].read_text().splitlines()]

    def start(self, workers: int) -> tuple[subprocess.Popen[bytes], float]:
        """Starts `headwater run`; returns the process and the time of day."""
        (self.folder / "memory").mkdir(exist_ok=True)
        self._seen = len(self.events())
        settings = self.settings | {"training.parallelism.workers": workers}
        command = [str(HEADWATER), "run", "biomed", *(f"--set={key}={value}" for key, value in settings.items())]
        log = (self.folder / "run.log").open("ab")
        return subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True), time.time()

    def wait(self, process: subprocess.Popen[bytes], done: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Until the events of this attempt say so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not done(self.events()[self._seen :]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self.folder / "run.log").read_text()[-3000:])
            time.sleep(0.05)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the run and all its processes, but not to the services."""
        records = (self.folder / "home" / "services" / f"{name}.json" for name in SERVICES)
        services = {json.loads(path.read_text())["pid"] for path in records if path.exists()}
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        kept = {pid for service in services for pid in _tree(service)}
        for found in family:
            if found.pid not in kept:
                with suppress(psutil.NoSuchProcess):
                    found.send_signal(signal.SIGKILL)
        process.wait()

    def phases(self, began: float, reached: int) -> dict[str, float]:
        """Seconds by phase of the attempt that began then, up to the first step after `reached`."""
        events = self.events()[self._seen :]
        by_type = {event["type"]: event for event in reversed(events)}  # the first of each
        startup, restart = by_type["startup"], by_type["restart"]
        origin = startup["time"] - startup["first_step"]
        new = next(event for event in events if event["type"] == "step" and event["step"] > reached)
        return {
            "start": by_type["plan"]["time"] - began,
            "group": origin + startup["entered"] - by_type["plan"]["time"],
            "join": startup["measured"] - startup["entered"],
            "restore": startup["ready"] - startup["measured"],
            "step": startup["first_step"] - startup["ready"],
            "replay": max(0.0, new["time"] - startup["time"]),
            "restored_step": restart["step"],
            "reached_step": reached,
            "loaded_in": restart["seconds"],
        }


def _tree(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _last_step(events: list[dict[str, Any]]) -> int:
    return max((event["step"] for event in events if event["type"] == "step"), default=-1)


def _resumed(training: Training, workers: int, reached: int) -> tuple[dict[str, float], subprocess.Popen[bytes]]:
    process, began = training.start(workers)
    training.wait(process, lambda events: _last_step(events) > reached)
    return training.phases(began, reached), process


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--size", default="7m")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train-seconds", type=float, default=40.0)
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="headwater-benchmark-", dir="/dev/shm") as name:
        training = Training(Path(name), options.size)
        try:
            with console.status("the first attempt ..."):
                process, _ = training.start(options.workers)
                training.wait(process, lambda events: any(event["type"] == "checkpoint" for event in events))
                time.sleep(options.train_seconds)
                training.kill(process)
            with console.status("killed, and started again ..."):
                killed, process = _resumed(training, options.workers, _last_step(training.events()))
                time.sleep(options.train_seconds / 4)
                training.kill(process)
            subprocess.run([str(HEADWATER), "down"], env=training.env, check=True, stderr=subprocess.DEVNULL)
            for part in ("home", "cache", "memory"):
                shutil.rmtree(training.folder / part, ignore_errors=True)
            with console.status("everything but the store deleted, and one worker less ..."):
                moved, process = _resumed(training, options.workers - 1, _last_step(training.events()))
                training.kill(process)
        finally:
            subprocess.run([str(HEADWATER), "down"], env=training.env, stderr=subprocess.DEVNULL)
    table = Table("seconds", "killed", "moved")
    for phase in PHASES:
        table.add_row(phase, f"{killed[phase]:.2f}", f"{moved[phase]:.2f}")
    table.add_row("all", *(f"{sum(one[phase] for phase in PHASES):.2f}" for one in (killed, moved)))
    for row in ("loaded_in", "restored_step", "reached_step"):
        table.add_row(row, f"{killed[row]:g}", f"{moved[row]:g}")
    console.print(table)
    if options.json:
        record = {"machine": machine(), "size": options.size, "killed": killed, "moved": moved}
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
