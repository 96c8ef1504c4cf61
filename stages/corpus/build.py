"""The corpus stage from listings to artifact: two passes over the files, and what is global between and behind them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifact import ArtifactWriter, InputError
from stages.corpus.config import CorpusConfig
from stages.corpus.decontaminate import Index
from stages.corpus.executor import Executor, Workers
from stages.corpus.finish import near_duplicates, write_documents
from stages.corpus.guess import readable, resolve_fields
from stages.corpus.inputs import note_inputs
from stages.corpus.judging import ChunkReader, Judge, JudgedWriter
from stages.corpus.ledger import Ledger
from stages.corpus.listing import Listing
from stages.corpus.merging import merge
from stages.corpus.reading import ChunkWriter, Prepare, QuarantiningReader, ReadTask, read_tasks
from stages.corpus.summary import SourceAccount, counts, table

BAD_PUT_UP_WITH = 2
"""So many unreadable records of a source never stop the stage."""


@dataclass(frozen=True)
class Chunk:
    """Documents of one source that are read and judged together, in corpus order."""

    name: str
    source: str
    documents: int


def build(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Fills the writer with the corpus of `config`.

    Args:
        inputs: `source/<name>` for each source of the config and `evaluation/<set>` for sets to keep out: Listings.

    Raises:
        InputError: unusable files or fields; too many unreadable records; nothing left.
    """
    accounts = {name: SourceAccount() for name in source_order(config)}
    note_inputs(inputs, writer)
    tasks = _tasks(config, inputs, writer)
    read, judged = writer.work("read"), writer.work("judged")
    sets = {role.split("/", 1)[1]: item for role, item in inputs.items() if role.startswith("evaluation/")}
    Index.of(sets, config.decontamination).save(read / "questions.npz")
    with Workers(config.workers) as workers:
        executor = Executor(
            [QuarantiningReader(tasks, read), Prepare(tasks, config.policy, config.edits), ChunkWriter(read)],
            len(tasks),
            writer.work("logs/read"),
        )
        total = sum(item.listing.bytes for item in {task.source: task for task in tasks}.values())
        sizes = [sum(f.bytes for f in task.listing.files if f.name in set(task.files)) for task in tasks]
        executor.execute(workers, _Progress(writer, sizes, total, "bytes", "read"))
        chunks = _chunks(tasks, read)
        _quarantine(config, tasks, read, accounts, writer)

        ledger = Ledger(writer, accounts)
        merge(config, chunks, read, accounts, ledger)
        writer.events.emit("step", step="exact_duplicates", removed=ledger.removed)

        names = [chunk.name for chunk in chunks]
        executor = Executor(
            [
                ChunkReader(names, read),
                Judge([chunk.source for chunk in chunks], read, config),
                JudgedWriter(names, judged, config),
            ],
            len(chunks),
            writer.work("logs/judge"),
        )
        sizes = [chunk.documents for chunk in chunks]
        executor.execute(workers, _Progress(writer, sizes, sum(sizes), "documents", "judge"))
    edits = _edits(judged, names)
    copies = near_duplicates(config, chunks, judged, ledger)
    writer.events.emit("step", step="near_duplicates", removed=len(copies))
    write_documents(config, chunks, judged, copies, accounts, ledger, writer)
    ledger.close()
    _report(config, accounts, edits, writer)


def source_order(config: CorpusConfig) -> list[str]:
    """Sources by priority, then name: the order of the corpus."""
    return sorted(config.sources, key=lambda name: (config.sources[name].priority, name))


class _Progress:
    """Adds up what finished ranks were worth and tells the events."""

    def __init__(self, writer: ArtifactWriter, worth: list[int], total: int, unit: str, step: str):
        self._writer, self._worth, self._total, self._unit, self._step = writer, worth, total, unit, step
        self._done = 0
        self._tell()

    def __call__(self, rank: int) -> None:
        self._done += self._worth[rank]
        self._tell()

    def _tell(self) -> None:
        self._writer.events.progress(self._done, self._total, self._unit, step=self._step)


def _tasks(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> list[ReadTask]:
    tasks = []
    for name in source_order(config):
        listing = inputs.get(f"source/{name}")
        if not isinstance(listing, Listing):
            raise InputError(f"corpus: no listing for source {name}; hand it in as inputs['source/{name}']")
        source = config.sources[name]
        listing, ignored = readable(listing, source)
        if ignored:
            message = (
                f"source {name}: {len(ignored)} files are no documents and were left out: {', '.join(ignored[:5])}"
            )
            writer.events.emit("warning", message=message)
        fields = resolve_fields(listing, source)
        writer.events.emit(
            "source", source=name, files=len(listing.files), bytes=listing.bytes, fields=fields.model_dump()
        )
        tasks += read_tasks(name, source.model_copy(update={"fields": fields}), listing)
    return tasks


def _chunks(tasks: list[ReadTask], read: Path) -> list[Chunk]:
    return [
        Chunk(item["name"], task.source, item["documents"])
        for rank, task in enumerate(tasks)
        for item in json.loads((read / f"{rank:05}.json").read_text())
    ]


def _quarantine(
    config: CorpusConfig, tasks: list[ReadTask], read: Path, accounts: dict[str, SourceAccount], writer: ArtifactWriter
) -> None:
    """Joins the tasks' lists of bad records and stops when a source has too many."""
    first: dict[str, dict[str, Any]] = {}
    with writer.file("quarantine.jsonl").open("w", encoding="utf-8") as out:
        for rank, task in enumerate(tasks):
            account = accounts[task.source]
            for chunk in json.loads((read / f"{rank:05}.json").read_text()):
                account.read += chunk["documents"]
            for line in (read / f"{rank:05}.quarantine.jsonl").read_text(encoding="utf-8").splitlines():
                bad = json.loads(line)
                account.quarantined += 1
                account.rest_lost += bool(bad.get("rest_lost"))
                first.setdefault(task.source, bad)
                if bad.get("rest_lost"):
                    message = f"{task.listing.path(bad['file'])} cannot be read to its end: {bad['reason']}"
                    writer.events.emit("warning", message=message)
                out.write(line + "\n")
    listings = {task.source: task.listing for task in tasks}
    for source, account in accounts.items():
        bad = account.quarantined
        few = bad <= BAD_PUT_UP_WITH and account.read > 0
        if bad and not few and bad > config.maximum_bad_fraction * account.records:
            place = f"{listings[source].path(first[source]['file'])}:{first[source]['record']}"
            raise InputError(
                f"corpus: {bad} of {account.records} records of source {source} cannot be used; the first is {place}: "
                f"{first[source]['reason']}. Mend the files, or allow more with maximum_bad_fraction "
                f"(now {config.maximum_bad_fraction:g})"
            )
    if not any(account.read for account in accounts.values()):
        raise InputError("corpus: the sources hold no documents; see that files are not empty")


def _edits(judged: Path, names: list[str]) -> dict[str, int]:
    edits: Counter[str] = Counter()
    for name in names:
        edits.update(json.loads((judged / f"{name}.json").read_text()))
    return dict(sorted(edits.items()))


def _report(
    config: CorpusConfig, accounts: dict[str, SourceAccount], edits: dict[str, int], writer: ArtifactWriter
) -> None:
    for source, account in accounts.items():
        account.check(source)
    content = table(accounts)
    total = content["rows"][-1]
    writer.counts.update(counts(total))
    writer.details["table"] = content
    writer.details["edits"] = edits
    rules = {name: dict(sorted(account.removed.items())) for name, account in accounts.items()}
    summary = {
        "table": content,
        "rules": rules,
        "edits": edits,
        "repeated_ids": {name: account.repeated_ids for name, account in accounts.items()},
        "files_lost": {name: account.rest_lost for name, account in accounts.items()},
    }
    writer.put("summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode() + b"\n")
    if writer.counts["kept"] == 0:
        raise InputError(
            f"corpus: no document is left of {writer.counts['in']}; removed: "
            f"{ {rule: n for a in accounts.values() for rule, n in a.removed.items()} }; loosen policy or filters"
        )
    if config.heldout_fraction and writer.counts["heldout"] == 0:
        message = (
            f"nothing is held out: of few groups none fell into the {config.heldout_fraction:g} chosen by hash; "
            "bits-per-byte needs held-out documents, so raise heldout_fraction or change the seed"
        )
        writer.events.emit("warning", message=message)
    writer.events.emit("summary", counts=writer.counts)
