"""A training step on a GPU beside a plain PyTorch model, and transformers where it is installed, on the same card.

    python benchmarks/training_gpu.py [--json FILE] [--size SIZE ...]

Needs PyTorch, NumPy and PyArrow and no set-up, so that it runs in any image. Rows of 2,048 tokens, bf16 products from
fp32 weights, AdamW, clipping; all compiled. One after the other, each in a process of its own and twice, for together
they would not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, REPOSITORY)  # nothing needs to be installed

import torch  # noqa: E402
from child import Child, NotMeasured  # noqa: E402
from spread import spread  # noqa: E402

from models.sizes import training_flops  # noqa: E402
from stages.training.runtime.precision import dense_peak  # noqa: E402

SCRIPT = Path(__file__).parent / "training_jobs.py"
SIZES = {"125m": (32, 16), "350m": (32, 8), "1.3b": (16, 4)}
"""Sequences a step, and a micro-batch."""
OURS = "Headwater"
TARGETS = {"over": 1.15, "mfu": {"125m": 0.45, "1.3b": 0.55}}
STEPS = 6
"""Of each turn; the first, which compiles, is not among them."""


def main() -> None:
    """Measures, prints lines, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--size", action="append", default=[], help=f"some of {', '.join(SIZES)}, or another")
    parser.add_argument(
        "--batch", type=int, default=16, help="sequences a step of another size; all in one micro-batch"
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=2, help="processes of each side")
    parser.add_argument("--device", default="cuda", help="cpu: to try the script")
    options = parser.parse_args()
    sizes = {size: SIZES.get(size, (options.batch, options.batch)) for size in options.size or SIZES}
    result = measure(sizes, options.length, options.device, options.turns)
    print_lines(result)
    if options.json:
        options.json.write_text(json.dumps({"date": time.strftime("%Y-%m-%d")} | result, indent=1) + "\n")


def measure(
    sizes: Mapping[str, tuple[int, int]] = SIZES, length: int = 2048, device: str = "cuda", turns: int = 2
) -> dict[str, Any]:
    """Tokens a second, utilization and ratios by size; what could not be measured, and why.

    Args:
        sizes: sequences a step and a micro-batch of each.
        turns: processes of each side, in turn.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return {"gpu": {}, "not_measured": {f"{', '.join(sizes)} on a GPU": "none is there"}}
    card = torch.cuda.get_device_name() if device == "cuda" else "the host's processor"
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for size, (batch, micro_batch) in sizes.items():
        given = {"size": size, "batch": batch, "length": length, "threads": torch.get_num_threads()}
        given |= {"device": device, "micro_batch": micro_batch}
        rival = given | {"precision": "autocast" if device == "cuda" else "fp32", "compiled": device == "cuda"}
        jobs = {
            OURS: ("ours", given | {"precision": "bf16" if device == "cuda" else "fp32"}),
            "plain PyTorch": ("plain", rival),
            "transformers": ("transformers", rival),
        }
        steps: dict[str, list[dict[str, Any]]] = {}
        for _ in range(turns):
            for name, (job, settings) in jobs.items():
                try:
                    steps.setdefault(name, []).extend(_turn(job, settings))
                except NotMeasured as error:
                    failed[f"{name}, {size}"] = str(error)
        found[size] = _compared({name: of for name, of in steps.items() if of}, size, batch, length, device, card)
    return {"gpu": found, "card": card, "not_measured": failed}


def _turn(job: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Steps of a process of their own."""
    path = os.pathsep.join([REPOSITORY, *filter(None, [os.environ.get("PYTHONPATH")])])
    child = Child(Path(sys.executable), SCRIPT, job, settings, os.environ | {"PYTHONPATH": path})
    try:
        child.wait_until_ready()
        return [child.round() for _ in range(STEPS)]
    finally:
        child.close()


def _compared(
    steps: Mapping[str, list[dict[str, Any]]], size: str, batch: int, length: int, device: str, card: str
) -> dict[str, Any]:
    from training_jobs import shape

    seconds = {name: [step["seconds"] for step in of] for name, of in steps.items()}
    tokens, flops = batch * length, training_flops(shape(size, length, device), length)
    peak, own = dense_peak(card), seconds.get(OURS)
    found: dict[str, Any] = {}
    for name, of in seconds.items():
        rate = spread([tokens / s for s in of])
        found[name] = {
            "tokens_per_second": rate,
            "mfu": rate["median"] * flops / peak if peak else None,
            "ours_over_it": median(of) / median(own) if own else None,
            "loss": steps[name][-1]["loss"],
        }
    return found


def print_lines(result: Mapping[str, Any]) -> None:
    """Prints what was measured, without any library."""
    for size, sides in result["gpu"].items():
        asked = f"; asked: over the rivals {TARGETS['over']}"
        if size in TARGETS["mfu"]:
            asked += f", {TARGETS['mfu'][size]:.0%} of the card's peak"
        print(f"\n{size} on {result['card']}{asked}")
        for name, found in sides.items():
            rate = found["tokens_per_second"]
            line = f"  {name:14} {rate['median']:10,.0f} tokens/s ({rate['least']:,.0f} - {rate['most']:,.0f})"
            line += f", {found['mfu']:.1%} of the peak" if found["mfu"] else ""
            line += f", ours over it {found['ours_over_it']:.2f}" if found["ours_over_it"] and name != OURS else ""
            print(f"{line}, loss {found['loss']:.3f}")
    for name, why in result["not_measured"].items():
        print(f"not measured: {name}: {why}")


if __name__ == "__main__":
    main()
