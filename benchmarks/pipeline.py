"""Seconds a stage, overhead of orchestration, start-up of the services, peak memory: the whole main job on the sample.

    .venv/bin/python benchmarks/pipeline.py [--json FILE] [--recipe biomed] [--set training.steps=200]

Runs `headwater run` in a fresh state folder on free ports, so nothing is skipped and nothing of yours is touched.
`overhead_fraction` is (whole run - the stages' own work) / whole run, service start-up apart; 0.15 is the limit we
hold ourselves to. Absolute seconds depend on the machine: its rate in a 2048^3 product is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import psutil

from stages.ports import free_port

HEADWATER = Path(sys.executable).with_name("headwater")


def main() -> None:
    """Runs the pipeline twice (built, then cached) and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--recipe", default="biomed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    from stages.training.runtime.precision import machine_rate

    number_format, rate = machine_rate()
    rate /= 1e9
    with tempfile.TemporaryDirectory(prefix="headwater-benchmark-") as folder:
        env = environment(Path(folder))
        command = [str(HEADWATER), "run", options.recipe, "--json", *(f"--set={item}" for item in options.set)]
        try:
            first = measured(command, env)
            second = measured(command, env)
        finally:
            subprocess.run([str(HEADWATER), "down"], env=env, check=True, stderr=subprocess.DEVNULL)
    result = {
        "machine_gflops": rate,
        "machine_format": number_format,
        "seconds": first["wall"],
        "seconds_again": second["wall"],
        "overhead_fraction": first["summary"]["overhead_fraction"],
        "peak_memory_gib": first["peak"] / 2**30,
        "service_seconds": first["services"],
        "stages": [
            {key: row[key] for key in ("stage", "seconds", "own_seconds")} for row in first["summary"]["stages"]
        ],
    }
    print(f"machine: {rate:.0f} GFLOP/s ({number_format} 2048^3 product)")
    print(f"{'stage':<14}{'seconds':>9}{'own':>9}")
    for row in result["stages"]:
        print(f"{row['stage']:<14}{row['seconds']:9.1f}{row['own_seconds']:9.1f}")
    for name, seconds in result["service_seconds"].items():
        print(f"start of {name:<14}{seconds:9.1f}")
    print(f"whole command {first['wall']:.1f} s, a second time with nothing changed {second['wall']:.1f} s")
    print(f"overhead_fraction {result['overhead_fraction']:.3f} (limit 0.15), peak {result['peak_memory_gib']:.1f} GiB")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def environment(folder: Path) -> dict[str, str]:
    """A state folder and ports of its own."""
    ports = [free_port() for _ in range(3)]
    return os.environ | {
        "HEADWATER_HOME": str(folder / "home"),
        "HEADWATER_PREFECT_PORT": str(ports[0]),
        "HEADWATER_MLFLOW_PORT": str(ports[1]),
        "HEADWATER_GATEWAY_PORT": str(ports[2]),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }


def measured(command: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Runs the command; wall seconds, peak resident bytes of all its processes, its JSON summary."""
    began = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    peak, services = Peak(env["HEADWATER_HOME"]), Services(env)
    output, _ = process.communicate()
    wall = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    started = services.stop() | ray_seconds(Path(env["HEADWATER_HOME"]) / "store")
    return {"wall": wall, "peak": peak.stop(), "services": started, "summary": json.loads(output)}


def ray_seconds(store: Path) -> dict[str, float]:
    """Seconds that Ray took to start, from the training stage's events."""
    for log in store.glob("training/*/events.jsonl"):
        for event in map(json.loads, log.read_text().splitlines()):
            if event["type"] == "ray":
                return {"ray": event["start_seconds"]}
    return {}


class Services:
    """Seconds from the start of the command until each service answers; they start side by side."""

    PATHS: ClassVar = {"PREFECT": "/api/health", "MLFLOW": "/health", "GATEWAY": "/health/live"}

    def __init__(self, env: dict[str, str]):
        self._urls = {
            name.lower(): f"http://127.0.0.1:{env[f'HEADWATER_{name}_PORT']}{path}" for name, path in self.PATHS.items()
        }
        self._began, self._seconds = time.monotonic(), {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """Ends the watch; services that never answered are absent."""
        self._stop.set()
        self._thread.join()
        return self._seconds

    def _watch(self) -> None:
        while len(self._seconds) < len(self._urls) and not self._stop.wait(0.2):
            for name, url in self._urls.items():
                if name not in self._seconds and answers(url):
                    self._seconds[name] = time.monotonic() - self._began


def answers(url: str) -> bool:
    """Whether a loopback URL answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Peak:
    """Highest sum of proportional resident memory over all processes with our state folder in their environment."""

    def __init__(self, home: str):
        self.home, self.highest = home, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Ends the watch and returns the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self.highest

    def _watch(self) -> None:
        while not self._stop.wait(2.0):
            total = 0
            for process in psutil.process_iter():
                try:
                    if process.environ().get("HEADWATER_HOME") == self.home:
                        total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.highest = max(self.highest, total)


if __name__ == "__main__":
    main()
