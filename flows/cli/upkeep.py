"""Keeping a store in order: `headwater gc` removes what nothing reaches, `headwater verify` hashes every byte again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Lock
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from flows.cli.console import Json, err, load, out, print_json, show
from serving.record import RECORD, read_record
from stages.store import Store, StoreError
from stages.store.gc import DAY, UNFINISHED_SECONDS, Collection, collect, plan_collection
from stages.store.reach import Root, Roots, ref_roots
from stages.store.verify import Damage, plan_verification
from stages.store.verify import verify as find_damage

LINE_SECONDS = 10.0
"""Outside a terminal, at most one line of progress in so many seconds."""


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    unfinished_after: Annotated[
        float,
        typer.Option("--unfinished-after", metavar="DAYS", min=0, help="Keep unfinished work (checkpoints) so long."),
    ] = UNFINISHED_SECONDS / DAY,
    keep_hours: Annotated[
        float, typer.Option("--keep-hours", min=0, help="Keep what was finished less than so many hours ago.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no ref reaches, unfinished work that was given up, and what dead writers left.

    Refs and the deployment record reach what they point at and all that it was made of. Work under way, and what it
    reads, stays. What goes can be made again from its recipe.
    """
    store = Store(load().store)
    more = lambda: record_roots(store)  # noqa: E731
    plan = plan_collection(store, more, unfinished_after=unfinished_after * DAY, keep_newer=keep_hours * 3600)
    now, rows = time.time(), list[dict[str, Any]]()
    outcomes = ((item, "") for item in plan.to_delete) if dry_run else collect(store, plan, more)
    for item, left in outcomes:
        rows.append(
            {
                "kind": item.kind,
                "id": item.id,
                "folder": item.name,
                "bytes": item.bytes,
                "age_seconds": round(max(0.0, now - item.changed)),
                "why": item.why,
                "removed": not dry_run and not left,
                "left_because": left,
            }
        )
        if left and not as_json:
            err.print(f"{item.id} was left: {left}", markup=False, soft_wrap=True)
    freed = sum(row["bytes"] for row in rows if not row["left_because"])
    if as_json:
        print_json({"dry_run": dry_run, "bytes": freed, "items": rows, "kept": _kept(plan)})
        return
    goes = [row for row in rows if not row["left_because"]]
    table = [
        {"kind": r["kind"], "id": r["id"], "size": size(r["bytes"]), "age": age(r["age_seconds"]), "why": r["why"]}
        for r in goes
    ]
    show("Would go" if dry_run else "Removed", table, False)
    show("Stays", [{"why": r["why"], "folders": r["folders"], "size": size(r["bytes"])} for r in _kept(plan)], False)
    things = f"{counted(len(goes), 'thing')}, {size(freed)}"
    said = f"{things} would go; nothing was removed" if dry_run else f"{things} removed"
    out.print(f"{store.url}: {said if goes else 'nothing to remove'}", markup=False, soft_wrap=True)


def verify(
    artifact: Annotated[
        str, typer.Argument(help="Ref, digest or kind/digest: it and what it was made of. Absent: the whole store.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Hash every byte again and name each file that is damaged or missing. Exit code 1 if there is one."""
    store = Store(load().store)
    roots = ref_roots(store) | record_roots(store, strict=False)
    plan = plan_verification(store, roots, artifact)
    found: list[Damage] = []
    with reading_bar(err, plan.bytes) as bar:
        for damage in find_damage(store, plan, bar.read):
            found.append(damage)
            if not as_json:
                bar.tell(f"{damage.path} ({damage.of}): {damage.problem}; {damage.remedy}")
    if as_json:
        counts = {"artifacts": plan.artifacts, "checkpoints": plan.checkpoints, "files": len(plan.files)}
        print_json({**counts, "bytes": plan.bytes, "damaged": [asdict(damage) for damage in found]})
    else:
        parts = (plan.artifacts, "artifact"), (plan.checkpoints, "checkpoint"), (len(plan.files), "file")
        checked = ", ".join(counted(number, thing) for number, thing in parts)
        state = f"{len(found)} damaged or missing" if found else "all as they were written"
        out.print(f"{checked}, {size(plan.bytes)} in {store.url}: {state}", markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)


def record_roots(store: Store, strict: bool = True) -> Roots:
    """What is served, and what is prepared to be.

    Raises:
        StoreError: the record is damaged; unless `strict` is off, when it is among the broken ones.
    """
    try:
        record = read_record(store)
    except StoreError as error:
        if strict:
            raise
        return Roots({}, {RECORD: str(error)})
    entries = [("stable", record.stable), ("canary", record.canary)]
    return Roots({f"{RECORD}#{k}": Root(e.model_folder, e.model_digest) for k, e in entries if e}, {})


def size(count: int) -> str:
    """Bytes as people read them, in powers of 1024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def age(seconds: float) -> str:
    """A span of time as people read it."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def counted(number: int, thing: str) -> str:
    """A number of things, in the singular for one."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _kept(plan: Collection) -> list[dict[str, Any]]:
    folders: Counter[str] = Counter(kept.why for kept in plan.kept)
    return [
        {"why": why, "folders": count, "bytes": sum(kept.bytes for kept in plan.kept if kept.why == why)}
        for why, count in folders.most_common()
    ]


class ReadingBar:
    """How far the reading is: a bar with ETA in a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, total: int):
        self._console, self._total, self._done = console, total, 0
        self._lock, self._told = Lock(), time.monotonic()
        self.progress = Progress(
            TextColumn("verify"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.progress.add_task("verify", total=total)

    def read(self, count: int) -> None:
        """Some bytes more were read, by any thread."""
        with self._lock:
            self._done += count
            due = not self._console.is_terminal and time.monotonic() - self._told >= LINE_SECONDS
            if due:
                self._told = time.monotonic()
                done, total = size(self._done), size(self._total)
        self.progress.advance(self._task, count)
        if due:
            self._console.print(f"  verify: {done} of {total}", markup=False)

    def tell(self, line: str) -> None:
        """A line above the bar, never cut: it names a path that people copy."""
        self._console.print(line, markup=False, soft_wrap=True)


@contextmanager
def reading_bar(console: Console, total: int) -> Iterator[ReadingBar]:
    """Shows how far the reading of `total` bytes is, until the block ends."""
    bar = ReadingBar(console, total)
    with bar.progress:
        yield bar
