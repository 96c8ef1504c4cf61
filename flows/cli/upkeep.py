"""`headwater gc` and `headwater verify`: deletes unreachable artifacts; hashes all files and compares."""

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
from stages.training.checkpoint.memory_tier import KEEP_SECONDS, leftovers, remove_leftover

LINE_SECONDS = 10.0
"""Outside a terminal, minimum interval between two lines of progress."""


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    unfinished_after: Annotated[
        float,
        typer.Option("--unfinished-after", metavar="DAYS", min=0, help="Keep unfinished work (checkpoints) this long."),
    ] = UNFINISHED_SECONDS / DAY,
    keep_hours: Annotated[
        float, typer.Option("--keep-hours", min=0, help="Keep artifacts finished within so many hours.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Delete artifacts that no ref reaches, abandoned unfinished work, and temporary files of dead writers.

    Refs and the deployment record reach their artifacts and all inputs of these. Running work, and its inputs, are
    kept. Deleted artifacts can be rebuilt from their recipe. Checkpoints in this machine's memory are deleted if their
    run was killed and nobody resumed it for a day.
    """
    store = Store(load().store)
    more = lambda: record_roots(store)  # noqa: E731
    plan = plan_collection(store, more, unfinished_after=unfinished_after * DAY, keep_newer=keep_hours * 3600)
    now, rows = time.time(), list[dict[str, Any]]()
    outcomes = ((item, "") for item in plan.to_delete) if dry_run else collect(store, plan, more)
    for item, skipped in outcomes:
        rows.append(
            {
                "kind": item.kind,
                "id": item.id,
                "folder": item.name,
                "bytes": item.bytes,
                "age_seconds": round(max(0.0, now - item.changed)),
                "why": item.why,
                "removed": not dry_run and not skipped,
                "skipped_because": skipped,
            }
        )
    rows += _collect_memory(dry_run)
    for row in rows:
        if row["skipped_because"] and not as_json:
            err.print(f"{row['id']} was not deleted: {row['skipped_because']}", markup=False, soft_wrap=True)
    freed = sum(row["bytes"] for row in rows if not row["skipped_because"])
    if as_json:
        print_json({"dry_run": dry_run, "bytes": freed, "items": rows, "kept": _kept(plan)})
        return
    deleted = [row for row in rows if not row["skipped_because"]]
    table = [
        {"kind": r["kind"], "id": r["id"], "size": size(r["bytes"]), "age": age(r["age_seconds"]), "why": r["why"]}
        for r in deleted
    ]
    show("Would be deleted" if dry_run else "Deleted", table, False)
    show("Kept", [{"why": r["why"], "folders": r["folders"], "size": size(r["bytes"])} for r in _kept(plan)], False)
    items = f"{counted(len(deleted), 'item')}, {size(freed)}"
    result = f"{items} would be deleted; nothing was deleted" if dry_run else f"{items} deleted"
    out.print(f"{store.url}: {result if deleted else 'nothing to delete'}", markup=False, soft_wrap=True)


def _collect_memory(dry_run: bool) -> Iterator[dict[str, Any]]:
    """Removes checkpoints in this machine's memory that nobody resumed for a day, of runs in any store; a row for each.

    They are removed outside of the store's collection: no ref reaches them, and a run resumes from the store without
    them.
    """
    for found in leftovers():
        if found.age_seconds <= KEEP_SECONDS:
            continue
        removed = not dry_run and remove_leftover(found)
        yield {
            "kind": "memory",
            "id": found.run,
            "folder": str(found.folder),
            "bytes": found.bytes,
            "age_seconds": round(found.age_seconds),
            "why": "checkpoints in memory of a run that was killed, and that nobody resumed",
            "removed": removed,
            "skipped_because": "" if removed or dry_run else "a run has resumed it since",
        }


def verify(
    artifact: Annotated[
        str, typer.Argument(help="Ref, digest or kind/digest: the artifact and its inputs. Absent: the whole store.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Hash all files again and report each that is damaged or missing. Exit code 1 if there is one."""
    store = Store(load().store)
    roots = ref_roots(store) | record_roots(store, strict=False)
    plan = plan_verification(store, roots, artifact)
    found: list[Damage] = []
    with reading_bar(err, plan.bytes) as bar:
        for damage in find_damage(store, plan, bar.read):
            found.append(damage)
            if not as_json:
                bar.print(f"{damage.path} ({damage.of}): {damage.problem}; {damage.remedy}")
    if as_json:
        counts = {"artifacts": plan.artifacts, "checkpoints": plan.checkpoints, "files": len(plan.files)}
        print_json({**counts, "bytes": plan.bytes, "damaged": [asdict(damage) for damage in found]})
    else:
        parts = (plan.artifacts, "artifact"), (plan.checkpoints, "checkpoint"), (len(plan.files), "file")
        checked = ", ".join(counted(number, thing) for number, thing in parts)
        state = f"{len(found)} damaged or missing" if found else "no damage"
        out.print(f"{checked}, {size(plan.bytes)} in {store.url}: {state}", markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)


def record_roots(store: Store, strict: bool = True) -> Roots:
    """The served model and the prepared one, from the deployment record.

    Raises:
        StoreError: the record is damaged; without `strict` it is returned as broken instead.
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
    """Bytes in readable form, in powers of 1024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def age(seconds: float) -> str:
    """A duration in readable form."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def counted(number: int, thing: str) -> str:
    """`1 thing`, `2 things`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _kept(plan: Collection) -> list[dict[str, Any]]:
    folders: Counter[str] = Counter(kept.why for kept in plan.kept)
    return [
        {"why": why, "folders": count, "bytes": sum(kept.bytes for kept in plan.kept if kept.why == why)}
        for why, count in folders.most_common()
    ]


class ReadingBar:
    """Progress of reading: a bar with ETA in a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, total: int):
        self._console, self._total, self._done = console, total, 0
        self._lock, self._last_line = Lock(), time.monotonic()
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
        """Adds `count` bytes; called by any thread."""
        with self._lock:
            self._done += count
            due = not self._console.is_terminal and time.monotonic() - self._last_line >= LINE_SECONDS
            if due:
                self._last_line = time.monotonic()
                done, total = size(self._done), size(self._total)
        self.progress.advance(self._task, count)
        if due:
            self._console.print(f"  verify: {done} of {total}", markup=False)

    def print(self, line: str) -> None:
        """Prints a line above the bar, never wrapped: it names a path to copy."""
        self._console.print(line, markup=False, soft_wrap=True)


@contextmanager
def reading_bar(console: Console, total: int) -> Iterator[ReadingBar]:
    """Shows the progress of reading `total` bytes, until the block ends."""
    bar = ReadingBar(console, total)
    with bar.progress:
        yield bar
