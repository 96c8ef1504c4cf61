"""The tables of `benchmarks/training.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from targets import Targets, print_targets

TARGETS: Targets = {
    "over_best_transformers_11m": (">=", 1.15),
    "over_best_transformers_30m": (">=", 1.15),
    "fsdp_over_single_30m": (">=", 0.95),
}


def print_report(result: Mapping[str, Any]) -> None:
    """Prints what was measured."""
    console = Console(width=130)
    machine = result["machine"]
    console.print(
        f"\n{result['date']}, {machine['processor']}, {machine['cores']} cores, products in {result['precision']}, "
        f"{result['minutes']:.1f} minutes; median (least-most)",
        highlight=False,
    )
    for size in ("11m", "30m"):
        if found := result.get(f"steps_{size}"):
            _print_steps(console, size, found, result[f"matmul_fraction_{size}"])
            _print_limit(console, size, found)
    if found := result.get("fsdp"):
        for who, seconds in found["seconds"].items():
            console.print(f"30m, {who}: {_range(seconds, '{:.2f}')} s a step", highlight=False)
        console.print(f"FSDP over one process: {_range(found['over'], '{:.3f}')}\n", highlight=False)
    print_targets(console, result, TARGETS)


def _print_steps(console: Console, size: str, found: Mapping[str, Any], fraction: float) -> None:
    rate = _range(found["rate_gflops"], "{:.0f}")
    table = Table(
        "who", "tokens/s", "ours over it", "loss", title=f"{size}: 8 x 512 tokens a step; 2048^3: {rate} GFLOP/s"
    )
    for name, tokens in found["tokens_per_second"].items():
        best = " (best)" if name == found["best"] else ""
        over = _range(found["over"][name], "{:.2f}")
        table.add_row(name + best, _range(tokens, "{:.0f}"), over, f"{found['loss'][name]:.3f}")
    console.print(table)
    console.print(f"operations of the model over the rate of a 2048^3 product: {fraction:.3f}\n", highlight=False)


def _print_limit(console: Console, size: str, found: Mapping[str, Any]) -> None:
    """Where a step's time goes: by phase, and what its products take alone."""
    whole = found["seconds"]
    table = Table("", "s", "share of a step", title=f"{size}: where ours spends a step of {whole:.3f} s")
    for phase in ("forward", "backward", "optimizer"):
        table.add_row(phase, f"{found['phases'][phase]:.3f}", f"{found['phases'][phase] / whole:.1%}")
    table.add_section()
    for kind, seconds in found["products_alone"].items():
        table.add_row(f"product alone: {kind}", f"{seconds:.3f}", f"{seconds / whole:.1%}")
    total = sum(found["products_alone"].values())
    table.add_row("all products alone: the limit", f"{total:.3f}", f"{total / whole:.1%}")
    console.print(table)


def _range(values: Mapping[str, Any], form: str) -> str:
    return f"{form.format(values['median'])} ({form.format(values['least'])}-{form.format(values['most'])})"
