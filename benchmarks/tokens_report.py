"""The tables of `benchmarks/tokens.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from targets import Targets, print_targets
from tokens_ours import PLAIN

TARGETS: Targets = {
    "shards_over_gigatoken": (">=", 0.5),
    "ids_over_memmap": (">=", 0.9),
    "batch_over_plain_numpy": (">=", 0.9),
    "loader_over_streaming": (">=", 100),
    "loader_over_hf": (">=", 5),
    "first_batch_over_memmap": ("<=", 1.5),
}
ROW_BYTES = 2048 * (2 + 8)
"""Memory traffic of a row's ids: read as uint16, written as int64."""


def print_report(result: Mapping[str, Any]) -> None:
    """Prints what was measured."""
    console = Console(width=130)
    machine = result["machine"]
    console.print(
        f"\n{result['date']}, {machine['processor']}, {machine['cores']} cores, one core copies "
        f"{machine['memory_copy_gigabytes_per_second']} GB/s (read and written), {result['minutes']:.1f} minutes; "
        "median (least-most)",
        highlight=False,
    )
    _print_shards(console, result)
    _print_numpy(console, result.get("loader", {}))
    _print_readers(console, result)
    _print_first(console, result.get("first", {}))
    _print_trace(console, result.get("trace", {}))
    print_targets(console, result, TARGETS)


def _print_shards(console: Console, result: Mapping[str, Any]) -> None:
    table = Table(
        "who", "threads", "MB/s", "ratio", "asked", "MiB resident at most", title="Corpus Parquet to committed shards"
    )
    if "text" in result:
        text = result["text"]
        table.caption = f"{text['megabytes']:.0f} MB of text, generated from {text['generated_from']}"
    for threads, found in result.get("shards", {}).items():
        for name, rate in found.get("megabytes_per_second", {}).items():
            ours = name.startswith("Headwater")
            ratio = _shown(found["ratio"], "{:.2f}") if ours else ""
            size = f"{found['resident'][name] / 2**20:.0f}"
            table.add_row(
                name, str(threads), _shown(rate, "{:.0f}"), ratio, _asked("shards_over_gigatoken", ours), size
            )
    if table.row_count:
        console.print(table)


def _print_numpy(console: Console, found: Mapping[str, Any]) -> None:
    if "beside_numpy" not in found:
        return
    table = Table("who", "rows/s", "GB/s moved", "ratio", "asked", title="One process, page cache warm, int64 tensors")
    keys = {"ids": "ids_over_memmap", "batch": "batch_over_plain_numpy"}
    for name, rate in found["beside_numpy"].items():
        key = keys.get(name)
        ratio = f"{_shown(found[key], '{:.2f}')} of {found[key]['over']}" if key else ""
        shown = f"Headwater, {name}" if key else name
        moved = "" if name in ("batch", PLAIN) else f"{rate['median'] * ROW_BYTES / 1e9:.1f}"
        table.add_row(shown, _shown(rate, "{:,.0f}"), moved, ratio, _asked(key or "", True))
    console.print(table)


def _print_readers(console: Console, result: Mapping[str, Any]) -> None:
    readers = result.get("loader", {}).get("readers", {})
    if not readers:
        return
    keys = {"MosaicML": "loader_over_streaming", "HF": "loader_over_hf"}
    title = "Loaders, ids alone, a process each"
    table = Table("who", "rows/s", "Headwater's ratio", "asked", "MiB anonymous", "MiB resident at most", title=title)
    for name, row in readers.items():
        key = next((key for word, key in keys.items() if name.startswith(word)), "")
        ratio = _shown(row["ratio"], "{:.1f}") if "ratio" in row else ""
        sizes = [f"{row[size] / 2**20:.0f}" for size in ("anonymous", "resident")]
        table.add_row(name, _shown(row["rows_per_second"], "{:,.0f}"), ratio, _asked(key, True), *sizes)
    console.print(table)


def _print_first(console: Console, found: Mapping[str, Any]) -> None:
    if not found:
        return
    title = (
        f"A cold process to its first batch at 90 % of a run ({found['table_rows']:,} rows; the rivals: the rows read)"
    )
    table = Table("who", "output", "s", "of them after imports", "ratio", "asked", title=title)
    for output in ("tensors", "arrays"):
        for name, row in found.get(output, {}).items():
            if name != "ratio":
                ours = name == "Headwater"
                ratio = _shown(found[output]["ratio"], "{:.2f}") if ours else ""
                asked = _asked("first_batch_over_memmap", ours and output == "tensors")
                times = [_shown(row["seconds"], "{:.2f}"), _shown(row["after_imports"], "{:.4f}")]
                table.add_row(name, output, *times, ratio, asked)
    for name, row in found["rivals"].items():
        times = [_shown(row["seconds"], "{:.2f}"), _shown(row["after_imports"], "{:.4f}")]
        table.add_row(name, "tensors", *times, "", "")
    console.print(table)


def _print_trace(console: Console, found: Mapping[str, Any]) -> None:
    if not found:
        return
    table = Table("what", "ms", "runs", title=f"Tracing in a run of {found['table_rows']:,} rows, tables only")
    descriptions = {
        "open": "loading tables and order",
        "at": "the documents of a batch of 16 rows",
        "where": "the steps that read a document",
    }
    for name, what in descriptions.items():
        table.add_row(what, _shown(found[name], "{:.2f}"), str(found[name]["runs"]))
    console.print(table)


def _asked(key: str, ours: bool) -> str:
    if not ours or key not in TARGETS:
        return ""
    sign, limit = TARGETS[key]
    return f"{sign} {limit:g}"


def _shown(found: Mapping[str, Any], form: str) -> str:
    return f"{form.format(found['median'])} ({form.format(found['least'])}-{form.format(found['most'])})"
