"""The tables of `benchmarks/corpus.py`, and how far two sides agree on the filters' verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from targets import Targets, print_targets

TARGETS: Targets = {
    "filters_ratio": (">=", 100),
    "filters_agreement": (">=", 0.99),
    "near_dedup_ratio": (">=", 60),
    "near_dedup_over_rensa": (">=", 1),
    "near_dedup_recall": (">=", 0.98),
    "near_dedup_wrongful": ("<=", 0),
    "stage_ratio": (">=", 60),
    "two_workers": (">=", 0.95),
    "memory_growth_10x": ("<=", 1.1),
}
RULES = {
    "gopher_short_doc": "quality_short",
    "gopher_long_doc": "quality_long",
    "gopher_below_avg_threshold": "quality_short_words",
    "gopher_above_avg_threshold": "quality_long_words",
    "gopher_too_many_hashes": "quality_hashes",
    "gopher_too_many_ellipsis": "quality_ellipses",
    "gopher_too_many_bullets": "quality_bullets",
    "gopher_too_many_end_ellipsis": "quality_line_ellipses",
    "gopher_below_alpha_threshold": "quality_letters",
    "gopher_enough_stop_words": "quality_stop_words",
    "dup_para_frac": "repetition_paragraphs",
    "dup_para_char_frac": "repetition_paragraphs",
    "dup_line_frac": "repetition_lines",
    "dup_line_char_frac": "repetition_lines",
    **{f"top_{n}_gram": "repetition_top_ngram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": "repetition_ngrams" for n in range(5, 11)},
    "lorem_ipsum": "c4_lorem_ipsum",
    "curly_bracket": "c4_curly_bracket",
    "too_few_sentences": "c4_too_few_sentences",
}
"""datatrove's reasons, and the names of the rules here."""
SHOWN = 20


def agreement(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Documents with equal verdict, first rule and text, of those that both sides saw; the others by example."""
    if not ours or not theirs:
        return {}
    differences = []
    documents = min(len(ours["outcomes"]), len(theirs["outcomes"]))
    for i in range(documents):
        (mine, text), (other, other_text) = ours["outcomes"][i], theirs["outcomes"][i]
        if RULES.get(other, other) != mine or text != other_text:
            differences.append({"document": i, "headwater": mine or "stays", "datatrove": other or "stays"})
    return {
        "documents": documents,
        "share": 1 - len(differences) / documents if documents else None,
        "removed_by_datatrove": sum(bool(reason) for reason, _ in theirs["outcomes"][:documents]),
        "different": len(differences),
        "examples": differences[:SHOWN],
    }


def print_report(result: Mapping[str, Any]) -> None:
    """Prints what was measured."""
    console = Console(width=120)
    machine = result["machine"]
    console.print(
        f"\n{result['date']}, {machine['processor']}, {machine['cores']} cores, one core copies "
        f"{machine['memory_copy_gigabytes_per_second']} GB/s (read and written); "
        f"{result['corpus']['megabytes']} MB, {result['corpus']['documents']:,} documents, "
        f"generated from {result['corpus']['generated_from']}, {result['minutes']:.1f} minutes",
        highlight=False,
    )
    _print_speed(console, result)
    _print_near(console, result)
    _print_agreement(console, result.get("filters", {}).get("agreement"))
    _print_memory(console, result.get("memory", []))
    _print_parts(console, result)
    print_targets(console, result, TARGETS)


def _print_speed(console: Console, result: Mapping[str, Any]) -> None:
    table = Table("what", "who", "MB", "runs", "MB/s", "least", "most", "ns a byte", title="Speed, one core")
    for section in ("filters", "near", "stage"):
        for who, row in result.get(section, {}).items():
            if not row or not row.get("megabytes_per_second"):
                continue
            rate = row["megabytes_per_second"]
            figures = [f"{rate[key]:.2f}" for key in ("median", "least", "most")]
            runs = str(len(row["seconds"]))
            table.add_row(section, who, f"{row['megabytes']:.0f}", runs, *figures, f"{1000 / rate['median']:.1f}")
    if table.row_count:
        console.print(table)
    both = result.get("two_workers_runs")
    if both:
        seconds = {name: ", ".join(f"{one:.1f}" for one in both[name]) for name in ("two_workers", "two_copies")}
        console.print(
            f"two workers: {seconds['two_workers']} s; two copies side by side, before and after each: "
            f"{seconds['two_copies']} s",
            highlight=False,
        )


def _print_near(console: Console, result: Mapping[str, Any]) -> None:
    table = Table("who", "removed", "planted pairs", "recall", "exact recall", "wrongful", title="Near duplicates")
    for who, row in result.get("near", {}).items():
        if "recall" in row:
            shares = [f"{row[name]:.4f}" for name in ("recall", "exact_recall")]
            table.add_row(who, f"{row['removed']:,}", f"{row['pairs']:,}", *shares, str(row["wrongful"]))
    if table.row_count:
        console.print(table)
        console.print(
            "Headwater on all documents against the survivor that it recorded; the others on the prefix, against the "
            "best document that stays",
            highlight=False,
        )


def _print_agreement(console: Console, found: Mapping[str, Any] | None) -> None:
    if not found:
        return
    console.print(
        f"filters: {found['documents'] - found['different']:,} of {found['documents']:,} documents equal in verdict, "
        f"rule and text; datatrove removes {found['removed_by_datatrove']:,}",
        highlight=False,
    )
    for row in found["examples"]:
        console.print(
            f"  document {row['document']}: Headwater {row['headwater']}, datatrove {row['datatrove']}",
            highlight=False,
        )


def _print_memory(console: Console, rows: list[Mapping[str, Any]]) -> None:
    if not rows:
        return
    table = Table("MB", "documents", "seconds", "MB/s", "peak MiB", "of it anonymous", title="Stage, one worker")
    for row in rows:
        sizes = [f"{row[name] / 2**20:.0f}" for name in ("peak_pss", "peak_anonymous")]
        speed = f"{row['megabytes'] / row['seconds']:.1f}"
        table.add_row(f"{row['megabytes']:.0f}", f"{row['documents']:,}", f"{row['seconds']:.1f}", speed, *sizes)
    console.print(table)


def _print_parts(console: Console, result: Mapping[str, Any]) -> None:
    copy = result["machine"]["memory_copy_gigabytes_per_second"]
    table = Table("part", "ns a byte", "copies of the text meanwhile", title="Profile of Headwater")
    rows = dict(result.get("profile", {}))
    stage = result.get("stage", {}).get("Headwater", {})
    for name, seconds in (stage.get("passes") or {}).items():
        rows[f"stage: {name}"] = seconds * 1000 / stage["megabytes"]
    for part, nanoseconds in rows.items():
        # A copy reads and writes: half its traffic is its pace.
        table.add_row(part, f"{nanoseconds:.2f}", f"{nanoseconds * copy / 2:.0f}")
    if table.row_count:
        console.print(table)
