"""A training step of ours beside stock transformers', and FSDP over two processes beside one.

    .venv/bin/python benchmarks/training.py [--json FILE] [--only SECTION] [--rounds N]

Everybody learns the same tokens with a tied Qwen3 of the same shape, causal, without document masks, in processes of
their own that take turns step by step: a ratio is the median over turns that followed each other. transformers runs in
every way that this machine can (eager and compiled; fp32, or autocast and pure bf16 where bf16 is fast), with the
allocator settings that our workers have, and the best counts; pure bf16 only if its loss is within 1 % of what fp32
weights reach. Absolute figures depend on the machine, so its rate in a 2048^3 product stands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from child import Child, NotMeasured, run_job
from machine import machine, versions
from rich.console import Console
from spread import spread
from training_gpu import measure, print_lines
from training_report import TARGETS, print_report

from stages.ports import free_port
from stages.training.runtime.process import ALLOCATOR

SCRIPT = Path(__file__).parent / "training_jobs.py"
PYTHON = Path(sys.executable)
OURS, PLAIN = "Headwater", "transformers out of the box"
PRODUCTS = "products of a step alone"
SECTIONS = ("11m", "30m", "fsdp", "gpu")
BATCH, LENGTH = 8, 512
WITHIN = 1.01
"""What a loss may be, as a multiple of that with fp32 weights."""

console = Console(stderr=True)


def main() -> None:
    """Measures, prints the tables, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each side at 11m; at 30m two thirds of them")
    parser.add_argument("--only", action="append", default=[], choices=SECTIONS, help="some of the sections")
    options = parser.parse_args()
    result = Benchmark(options.rounds).run(options.only or SECTIONS)
    print_report(result)
    if "card" in result:
        print_lines(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if any(name.startswith(OURS) for name in result["not_measured"]):
        raise SystemExit("some of Headwater's own figures could not be measured")


class Benchmark:
    """One run of the sections.

    Args:
        rounds: turns of each side at 11m.
    """

    def __init__(self, rounds: int):
        self.rounds = {"11m": rounds, "30m": max(2, rounds * 2 // 3), "fsdp": max(2, rounds * 2 // 3)}
        self.threads = len(os.sched_getaffinity(0))
        self.not_measured: dict[str, str] = {}
        self.began = time.monotonic()
        import torch

        from stages.training.runtime.precision import faster_format

        self.precision = faster_format(torch.device("cpu"))

    def run(self, sections: Sequence[str]) -> dict[str, Any]:
        """Keys as the issue names them, raw figures besides."""
        result: dict[str, Any] = dict.fromkeys(TARGETS)
        result |= {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions(("torch", "transformers", "numpy"), (), PYTHON),
            "precision": self.precision,
        }
        for size in ("11m", "30m"):
            if size in sections:
                result |= self._beside_transformers(size)
        if "fsdp" in sections:
            result |= self._fsdp()
        if "gpu" in sections:
            found = measure()
            self.not_measured |= found.pop("not_measured")
            result |= found
        return result | {"not_measured": self.not_measured, "minutes": round((time.monotonic() - self.began) / 60, 2)}

    def _beside_transformers(self, size: str) -> dict[str, Any]:
        """Steps in turn, and what the products of ours take alone."""
        given = {"size": size, "batch": BATCH, "length": LENGTH, "threads": self.threads}
        sides: dict[str, tuple[str, dict[str, Any], bool]] = {OURS: ("ours", {"precision": self.precision}, True)}
        for precision in ("fp32",) if self.precision == "fp32" else ("autocast", "bf16"):
            for compiled in (False, True):
                name = f"transformers {precision}{' compiled' if compiled else ''}"
                sides[name] = ("transformers", {"precision": precision, "compiled": compiled}, True)
        if size == "11m":
            usual = "fp32" if self.precision == "fp32" else "autocast"
            sides[PLAIN] = ("transformers", {"precision": usual, "compiled": False}, False)
        sides[PRODUCTS] = ("products", {"precision": self.precision}, True)
        with Sides({name: (job, given | extra, settings) for name, (job, extra, settings) in sides.items()}) as running:
            self.not_measured |= {f"{name}, {size}": why for name, why in running.failed.items()}
            steps, rates = running.turns(self.rounds[size], self.precision)
        alone = [found["by_kind"] for found in steps.pop(PRODUCTS)]
        return self._compared(size, steps, rates, {kind: median(a[kind] for a in alone) for kind in alone[0]})

    def _compared(
        self,
        size: str,
        steps: Mapping[str, list[dict[str, Any]]],
        rates: Sequence[float],
        alone: Mapping[str, float],
    ) -> dict[str, Any]:
        from training_jobs import shape

        from models.sizes import training_flops

        tokens, seconds = BATCH * LENGTH, {name: [s["seconds"] for s in found] for name, found in steps.items()}
        losses = {name: found[-1]["loss"] for name, found in steps.items()}
        rivals = [name for name in steps if name not in (OURS, PLAIN) and self._learns(name, losses)]
        ratios = {
            name: spread([a / b for a, b in zip(found, seconds[OURS], strict=True)]) for name, found in seconds.items()
        }
        best = min(rivals, key=lambda name: ratios[name]["median"], default=None)
        flops = training_flops(shape(size, LENGTH, "cpu"), LENGTH) * tokens
        fraction = median(flops / s / rate for s, rate in zip(seconds[OURS], rates, strict=True))
        found: dict[str, Any] = {
            f"over_best_transformers_{size}": ratios[best]["median"] if best else None,
            f"matmul_fraction_{size}": fraction,
            f"steps_{size}": {
                "best": best,
                "rate_gflops": spread([rate / 1e9 for rate in rates]),
                "tokens_per_second": {name: spread([tokens / s for s in of]) for name, of in seconds.items()},
                "over": ratios,
                "loss": losses,
                "phases": {
                    phase: median(s["phases"][phase] for s in steps[OURS]) for phase in steps[OURS][0]["phases"]
                },
                "products_alone": alone,
                "seconds": median(seconds[OURS]),
            },
        }
        if PLAIN in ratios:
            found[f"over_transformers_plain_{size}"] = ratios[PLAIN]["median"]
        return found

    def _learns(self, name: str, losses: Mapping[str, float]) -> bool:
        """Whether a way of running transformers reaches what it does with fp32 weights."""
        masters = min(loss for other, loss in losses.items() if "fp32" in other or "autocast" in other)
        if losses[name] <= WITHIN * masters:
            return True
        self.not_measured[name] = f"does not count: its loss is {losses[name] / masters:.3f} of that with fp32 weights"
        return False

    def _fsdp(self) -> dict[str, Any]:
        """Two processes of one thread, sharded, beside one process of two threads: the same global batch."""
        given = {"size": "30m", "precision": self.precision, "batch": BATCH, "length": LENGTH}
        port = free_port()
        alone = ("ours", given | {"threads": 2}, True)
        both = {
            f"rank {rank}": ("ours", given | {"threads": 1, "rank": rank, "world": 2, "port": port}, True)
            for rank in (0, 1)
        }
        try:
            with Sides({OURS: alone}) as one, Sides(both) as two:
                if one.failed or two.failed:
                    raise NotMeasured(str(one.failed | two.failed))
                pairs = []
                for _ in range(self.rounds["fsdp"]):
                    single = one.together()[OURS]["seconds"]
                    pairs.append((single, max(found["seconds"] for found in two.together().values())))
        except NotMeasured as error:
            self.not_measured[f"{OURS}, FSDP"] = str(error)
            return {}
        ratios = spread([single / sharded for single, sharded in pairs])
        seconds = {"one process": spread([a for a, _ in pairs]), "two, FSDP": spread([b for _, b in pairs])}
        return {"fsdp_over_single_30m": ratios["median"], "fsdp": {"over": ratios, "seconds": seconds}}


class Sides:
    """Jobs that are ready, each in a process of its own.

    Args:
        jobs: by name, the job, its options and whether it gets our workers' allocator settings.
    """

    def __init__(self, jobs: Mapping[str, tuple[str, Mapping[str, Any], bool]]):
        self.failed: dict[str, str] = {}
        plain = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
        self._running = {
            name: Child(PYTHON, SCRIPT, job, options, plain | (ALLOCATOR if settings else {}))
            for name, (job, options, settings) in jobs.items()
        }
        for name, child in [*self._running.items()]:
            with console.status(f"{name}: first step ..."):
                try:
                    child.wait_until_ready()
                except NotMeasured as error:
                    self.failed[name] = str(error)
                    del self._running[name]

    def turns(self, rounds: int, precision: str) -> tuple[dict[str, list[dict[str, Any]]], list[float]]:
        """Every job's step `rounds` times in turn, and the machine's rate before each round."""
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in self._running}
        rates = []
        for number in range(rounds):
            with console.status(f"round {number + 1} of {rounds} ..."):
                rates.append(run_job(PYTHON, SCRIPT, "rate", {"precision": precision})["rate"])
                for name, child in self._running.items():
                    steps[name].append(child.round())
        return steps, rates

    def together(self) -> dict[str, dict[str, Any]]:
        """All jobs' steps at the same time."""
        for child in self._running.values():
            child.begin_round()
        return {name: child.end_round() for name, child in self._running.items()}

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._running.values():
            child.close()


if __name__ == "__main__":
    main()
