"""The corpus stage from listings to artifact: three passes over the documents, and global steps between them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stages.corpus.chunks import Chunk, row_offsets
from stages.corpus.config import CorpusConfig
from stages.corpus.decontaminate import Index, clean_subsets
from stages.corpus.dedup.near.gather import GatherCandidates, gather_groups
from stages.corpus.dedup.near.tasks import REMOVALS, CompareCandidates, find_candidates, removals
from stages.corpus.execution.executor import Shared, Workers, work_folder
from stages.corpus.ledger import Ledger
from stages.corpus.passes.finish import WriteDocuments, collect_documents, file_groups
from stages.corpus.passes.judge import JudgeChunks, clear_cache, load_filters
from stages.corpus.passes.merge import Merged, account_for, merge
from stages.corpus.passes.prepare import Prepare
from stages.corpus.reading.documents import QuarantiningReader
from stages.corpus.reading.file_ranges import ReadTask, first_records, read_tasks
from stages.corpus.reading.guess import resolve_fields
from stages.corpus.reading.inputs import write_input_list
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.sources import readable
from stages.corpus.summary import SourceAccount, counts, table
from stages.corpus.tables import write_chunk
from stages.store import ArtifactWriter, InputError

ALWAYS_TOLERATED_BAD_RECORDS = 2
"""So many unreadable records of a source never stop the stage."""


def build(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter, workers: Workers) -> None:
    """Fills the writer with the corpus of `config`.

    Args:
        inputs: Listings: `source/<name>` for each source of the config, `evaluation/<set>` for each evaluation set.
        workers: they run the passes.

    Raises:
        InputError: files or fields cannot be used, too many records are unreadable, or no document is kept.
    """
    write_input_list(inputs, writer)
    tasks = _tasks(config, inputs, writer)
    sets = {role.split("/", 1)[1]: item for role, item in inputs.items() if role.startswith("evaluation/")}
    with work_folder(config, writer) as folder:
        _Build(config, writer, workers, folder).run(tasks, sets)


class _Build:
    """One run of the stage: its folders, workers and accounts."""

    def __init__(self, config: CorpusConfig, writer: ArtifactWriter, workers: Workers, folder: Path):
        self.config, self.writer, self.workers, self.folder = config, writer, workers, folder
        self.accounts = {name: SourceAccount() for name in source_order(config)}
        self.ledger = Ledger(writer, self.accounts)
        self.read, self.judged, self.near, self.written = (
            self._subfolder(name) for name in ("read", "judged", "near", "written")
        )

    def _subfolder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, tasks: list[ReadTask], sets: Mapping[str, Listing]) -> None:
        """All passes, then the report."""
        chunks, index = self._read(tasks, sets)
        merged = merge(self.config, chunks, self.read)
        self.writer.events.emit("pass_finished", pass_name="exact_duplicates", removed=int((~merged.keep).sum()))
        chunks = self._judge(chunks, merged)
        seen = np.zeros(len(index), bool)
        edits: Counter[str] = Counter()
        for chunk in chunks:
            seen |= np.load(self.judged / f"{chunk.name}.items.npy")
            edits.update(json.loads((self.judged / f"{chunk.name}.json").read_text()))
        if sets:
            clean_subsets(sets, seen, index, self.writer.put)
        self._compare(chunks)
        self._write(chunks)
        self.ledger.close()
        _report(self.config, self.accounts, dict(sorted(edits.items())), self.writer)

    def _read(self, tasks: list[ReadTask], sets: Mapping[str, Listing]) -> tuple[list[Chunk], Index]:
        """The first pass, and the index of evaluation questions, which is built at the same time."""
        indexes: list[Index] = []

        def build_index() -> None:
            indexes.append(Index.of(sets, self.config.decontamination))
            indexes[0].save(self.read / "questions.npz")

        sizes = [task.bytes for task in tasks]
        shared = Shared(tasks)
        reader = QuarantiningReader(shared, self.read, self.config.maximum_record_bytes)
        steps = [reader, Prepare(shared, self.read, self.config)]
        done = _Progress(self.writer, sizes, sum(sizes), "bytes", "read")
        self.workers.run(steps, len(tasks), self._subfolder("logs/read"), done, build_index)
        self.workers.preload(partial(load_filters, self.config))
        first = first_records(tasks, [_json(self.read / f"{rank:05}.counts.json") for rank in range(len(tasks))])
        chunks = [
            Chunk(item["name"], task.source, item["documents"], first[rank])
            for rank, task in enumerate(tasks)
            for item in _json(self.read / f"{rank:05}.json")
        ]
        for chunk in chunks:
            self.accounts[chunk.source].read += chunk.documents
        _quarantine(self.config, tasks, first, self.read, self.accounts, self.writer)
        return chunks, indexes[0]

    def _judge(self, chunks: list[Chunk], merged: Merged) -> list[Chunk]:
        """The second pass, and at the same time the account of the first; returns the chunks with their new sizes."""
        sizes = [chunk.documents for chunk in chunks]
        done = _Progress(self.writer, sizes, sum(sizes), "documents", "judge")
        step = JudgeChunks(Shared(chunks), self.read, self.judged, self.config)

        def account() -> None:
            account_for(self.config, chunks, self.read, merged, self.accounts, self.ledger)

        self.workers.run([step], len(chunks), self._subfolder("logs/judge"), done, account)
        clear_cache()  # this process may have been a worker, and may run for long
        kept = [merged.keep[first:last].sum() for first, last in pairwise(row_offsets(chunks))]
        return [replace(chunk, documents=int(n)) for chunk, n in zip(chunks, kept, strict=True)]

    def _compare(self, chunks: list[Chunk]) -> None:
        """Near duplicates: writes `copies.arrow` for the last pass."""
        copies = REMOVALS.empty_table()
        if self.config.dedup.near:
            found = find_candidates(self.config, chunks, self.judged)
            found.save(self.near)
            groups = gather_groups(chunks, self.judged) if found.count else []
            gather = GatherCandidates(Shared(groups), Shared(chunks), self.judged, self.near, self.config.dedup)
            compare = CompareCandidates(self.near, len(groups), self.config.dedup)
            tasks = len(groups) + found.count
            done = _Progress(self.writer, [1] * tasks, tasks, "tasks", "near_duplicates")
            self.workers.run([gather], len(groups), self._subfolder("logs/gather"), done)
            self.workers.run(
                [compare], found.count, self._subfolder("logs/near"), lambda rank: done(len(groups) + rank)
            )
            copies = removals(found.count, chunks, self.judged, self.near)
        write_chunk(copies, self.written / "copies.arrow")
        self.writer.events.emit("pass_finished", pass_name="near_duplicates", removed=len(copies))

    def _write(self, chunks: list[Chunk]) -> None:
        groups = file_groups(chunks, self.judged)
        sizes = [sum(chunks[number].documents for number in group) for group in groups]
        done = _Progress(self.writer, sizes, sum(sizes), "documents", "write")
        step = WriteDocuments(Shared(groups), Shared(chunks), self.judged, self.written, self.config)

        def delete_earlier_passes() -> None:  # a second for each gigabyte, in which workers have work
            for folder in (self.read, self.near):
                shutil.rmtree(folder)

        self.workers.run([step], len(groups), self._subfolder("logs/write"), done, delete_earlier_passes)
        collect_documents(groups, chunks, self.written, self.accounts, self.ledger, self.writer)


def source_order(config: CorpusConfig) -> list[str]:
    """Sources by priority, then name: the order of the corpus."""
    return sorted(config.sources, key=lambda name: (config.sources[name].priority, name))


class _Progress:
    """Adds up the sizes of finished ranks and emits progress events."""

    def __init__(self, writer: ArtifactWriter, sizes: list[int], total: int, unit: str, pass_name: str):
        self._writer, self._sizes, self._total, self._unit, self._pass = writer, sizes, total, unit, pass_name
        self._done = 0
        self._emit()

    def __call__(self, rank: int) -> None:
        self._done += self._sizes[rank]
        self._emit()

    def _emit(self) -> None:
        self._writer.events.progress(self._done, self._total, self._unit, pass_name=self._pass)


def _tasks(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> list[ReadTask]:
    tasks = []
    unread: dict[str, list[dict[str, Any]]] = {}
    for name in source_order(config):
        listing = inputs.get(f"source/{name}")
        if not isinstance(listing, Listing):
            raise InputError(
                f"corpus: the inputs have no listing for source {name}; pass it as inputs['source/{name}']"
            )
        source = config.sources[name]
        listing = readable(listing, source)
        if listing.unread:
            unread[name] = [vars(one) | {"names": list(one.names)} for one in listing.unread]
            number = sum(one.count for one in listing.unread)
            writer.events.emit("warning", message=f"source {name}: {number:,} not read; the report names them")
        fields = resolve_fields(listing, source)
        writer.events.emit(
            "source", source=name, files=len(listing.files), bytes=listing.bytes, fields=fields.model_dump()
        )
        tasks += read_tasks(name, source.model_copy(update={"fields": fields}), listing)
    writer.details["unread"] = unread  # not part of the digest: it says nothing about the documents
    return tasks


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _quarantine(
    config: CorpusConfig,
    tasks: list[ReadTask],
    first_records: list[tuple[int, ...]],
    read: Path,
    accounts: dict[str, SourceAccount],
    writer: ArtifactWriter,
) -> None:
    """Joins the tasks' lists of bad records.

    Raises:
        InputError: a source has too many, or no source has a document.
    """
    first: dict[str, dict[str, Any]] = {}
    with writer.file("quarantine.jsonl").open("w", encoding="utf-8") as out:
        for rank, task in enumerate(tasks):
            account = accounts[task.source]
            # Line by line, split only at `\n`: there may be millions, and a reason may contain other line ends.
            with (read / f"{rank:05}.quarantine.jsonl").open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    bad = json.loads(line)
                    bad["record"] += first_records[rank][bad.pop("file_range")]
                    account.quarantined += 1
                    blank = bad.pop("blank", False)
                    account.blank += blank
                    account.rest_lost += bool(bad.get("rest_lost"))
                    if not blank:
                        first.setdefault(task.source, bad)
                    if bad.get("rest_lost"):
                        message = f"{task.listing.path(bad['file'])} cannot be read to its end: {bad['reason']}"
                        writer.events.emit("warning", message=message)
                    out.write(json.dumps(bad, ensure_ascii=False) + "\n")
    listings = {task.source: task.listing for task in tasks}
    refused = []
    for source, account in accounts.items():
        bad = account.quarantined - account.blank
        few = bad <= ALWAYS_TOLERATED_BAD_RECORDS and account.read > 0
        if bad and not few and bad > config.maximum_unreadable_fraction * account.records:
            place = f"{listings[source].path(first[source]['file'])}:{first[source]['record']}"
            refused.append(
                f"{bad} of {account.records} records of source {source} cannot be used; the first is {place}: "
                f"{first[source]['reason']}"
            )
    if refused:
        raise InputError(
            f"corpus: {'; '.join(refused)}. Repair the files, or raise corpus.maximum_unreadable_fraction "
            f"(now {config.maximum_unreadable_fraction:g})"
        )
    if not any(account.read for account in accounts.values()):
        raise InputError("corpus: the sources have no documents; check that the files are not empty")


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
        "blank_files": {name: account.blank for name, account in accounts.items()},
        "files_lost": {name: account.rest_lost for name, account in accounts.items()},
    }
    writer.put("summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode() + b"\n")
    if writer.counts["kept"] == 0:
        raise InputError(
            f"corpus: none of {writer.counts['in']} documents is kept; removed: "
            f"{ {rule: n for a in accounts.values() for rule, n in a.removed.items()} }; loosen policy or filters"
        )
    if config.heldout_fraction and writer.counts["heldout"] == 0:
        message = (
            f"no document is held out: no group's hash is within heldout_fraction ({config.heldout_fraction:g}); "
            "bits per byte needs held-out documents: raise heldout_fraction or change the seed"
        )
        writer.events.emit("warning", message=message)
    writer.events.emit("summary", counts=writer.counts)
