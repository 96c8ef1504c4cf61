"""The corpus stage from listings to artifact: three passes over the documents, and what is global between them."""

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

from stages.corpus.chunks import Chunk, bases
from stages.corpus.config import CorpusConfig
from stages.corpus.decontaminate import Index, clean_subsets
from stages.corpus.dedup.near.gather import GatherCandidates, gathered_together
from stages.corpus.dedup.near.tasks import REMOVALS, CompareCandidates, find_candidates, removals
from stages.corpus.execution.executor import Shared, Workers, work_folder
from stages.corpus.ledger import Ledger
from stages.corpus.passes.finish import WriteDocuments, file_groups, take_over
from stages.corpus.passes.judging import JudgeChunks, forget, load
from stages.corpus.passes.merging import Merged, account_for, merge
from stages.corpus.passes.prepare import Prepare
from stages.corpus.reading.documents import QuarantiningReader
from stages.corpus.reading.file_ranges import ReadTask, first_records, read_tasks
from stages.corpus.reading.guess import readable, resolve_fields
from stages.corpus.reading.inputs import note_inputs
from stages.corpus.reading.listing import Listing
from stages.corpus.summary import SourceAccount, counts, table
from stages.corpus.tables import write_chunk
from stages.store import ArtifactWriter, InputError

BAD_PUT_UP_WITH = 2
"""So many unreadable records of a source never stop the stage."""


def build(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter, workers: Workers) -> None:
    """Fills the writer with the corpus of `config`.

    Args:
        inputs: `source/<name>` for each source of the config and `evaluation/<set>` for sets to keep out: Listings.
        workers: what the passes run on.

    Raises:
        InputError: unusable files or fields; too many unreadable records; nothing left.
    """
    note_inputs(inputs, writer)
    tasks = _tasks(config, inputs, writer)
    sets = {role.split("/", 1)[1]: item for role, item in inputs.items() if role.startswith("evaluation/")}
    with work_folder(config, writer) as folder:
        _Build(config, writer, workers, folder).run(tasks, sets)


class _Build:
    """One run of the stage: its folders, its workers, the account that it keeps."""

    def __init__(self, config: CorpusConfig, writer: ArtifactWriter, workers: Workers, folder: Path):
        self.config, self.writer, self.workers, self.folder = config, writer, workers, folder
        self.accounts = {name: SourceAccount() for name in source_order(config)}
        self.ledger = Ledger(writer, self.accounts)
        self.read, self.judged, self.near, self.written = (
            self._made(name) for name in ("read", "judged", "near", "written")
        )

    def _made(self, name: str) -> Path:
        below = self.folder / name
        below.mkdir(parents=True, exist_ok=True)
        return below

    def run(self, tasks: list[ReadTask], sets: Mapping[str, Listing]) -> None:
        """All passes, then the report."""
        chunks, index = self._read(tasks, sets)
        merged = merge(self.config, chunks, self.read)
        self.writer.events.emit("step", step="exact_duplicates", removed=int((~merged.keep).sum()))
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
        """The first pass, and the index of evaluation questions, which is made meanwhile."""
        made: list[Index] = []

        def index() -> None:
            made.append(Index.of(sets, self.config.decontamination))
            made[0].save(self.read / "questions.npz")

        sizes = [task.bytes for task in tasks]
        shared = Shared(tasks)
        reader = QuarantiningReader(shared, self.read, self.config.maximum_record_bytes)
        steps = [reader, Prepare(shared, self.read, self.config)]
        done = _Progress(self.writer, sizes, sum(sizes), "bytes", "read")
        self.workers.run(steps, len(tasks), self._made("logs/read"), done, index)
        self.workers.prepare(partial(load, self.config))
        first = first_records(tasks, [_json(self.read / f"{rank:05}.seen.json") for rank in range(len(tasks))])
        chunks = [
            Chunk(item["name"], task.source, item["documents"], first[rank])
            for rank, task in enumerate(tasks)
            for item in _json(self.read / f"{rank:05}.json")
        ]
        for chunk in chunks:
            self.accounts[chunk.source].read += chunk.documents
        _quarantine(self.config, tasks, first, self.read, self.accounts, self.writer)
        return chunks, made[0]

    def _judge(self, chunks: list[Chunk], merged: Merged) -> list[Chunk]:
        """The second pass, and meanwhile the account of the first; returns the chunks with what is left in them."""
        sizes = [chunk.documents for chunk in chunks]
        done = _Progress(self.writer, sizes, sum(sizes), "documents", "judge")
        step = JudgeChunks(Shared(chunks), self.read, self.judged, self.config)

        def account() -> None:
            account_for(self.config, chunks, self.read, merged, self.accounts, self.ledger)

        self.workers.run([step], len(chunks), self._made("logs/judge"), done, account)
        forget()  # this process may have been a worker, and goes on for long
        kept = [merged.keep[first:last].sum() for first, last in pairwise(bases(chunks))]
        return [replace(chunk, documents=int(n)) for chunk, n in zip(chunks, kept, strict=True)]

    def _compare(self, chunks: list[Chunk]) -> None:
        """Near duplicates: leaves `copies.arrow` for the last pass."""
        copies = REMOVALS.empty_table()
        if self.config.dedup.near:
            found = find_candidates(self.config, chunks, self.judged)
            found.save(self.near)
            groups = gathered_together(chunks, self.judged) if found.count else []
            gather = GatherCandidates(Shared(groups), Shared(chunks), self.judged, self.near, self.config.dedup)
            compare = CompareCandidates(self.near, len(groups), self.config.dedup)
            tasks = len(groups) + found.count
            done = _Progress(self.writer, [1] * tasks, tasks, "tasks", "near_duplicates")
            self.workers.run([gather], len(groups), self._made("logs/gather"), done)
            self.workers.run([compare], found.count, self._made("logs/near"), lambda rank: done(len(groups) + rank))
            copies = removals(found.count, chunks, self.judged, self.near)
        write_chunk(copies, self.written / "copies.arrow")
        self.writer.events.emit("step", step="near_duplicates", removed=len(copies))

    def _write(self, chunks: list[Chunk]) -> None:
        groups = file_groups(chunks, self.judged)
        sizes = [sum(chunks[number].documents for number in group) for group in groups]
        done = _Progress(self.writer, sizes, sum(sizes), "documents", "write")
        step = WriteDocuments(Shared(groups), Shared(chunks), self.judged, self.written, self.config)

        def forget_earlier_passes() -> None:  # a gigabyte takes a second, in which workers have something to do
            for folder in (self.read, self.near):
                shutil.rmtree(folder)

        self.workers.run([step], len(groups), self._made("logs/write"), done, forget_earlier_passes)
        take_over(groups, chunks, self.written, self.accounts, self.ledger, self.writer)


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
    """Joins the tasks' lists of bad records and stops when a source has too many."""
    first: dict[str, dict[str, Any]] = {}
    with writer.file("quarantine.jsonl").open("w", encoding="utf-8") as out:
        for rank, task in enumerate(tasks):
            account = accounts[task.source]
            # Line by line, and only at `\n`: there may be millions, and a reason may hold other ends of a line.
            with (read / f"{rank:05}.quarantine.jsonl").open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    bad = json.loads(line)
                    bad["record"] += first_records[rank][bad.pop("piece")]
                    account.quarantined += 1
                    account.rest_lost += bool(bad.get("rest_lost"))
                    first.setdefault(task.source, bad)
                    if bad.get("rest_lost"):
                        message = f"{task.listing.path(bad['file'])} cannot be read to its end: {bad['reason']}"
                        writer.events.emit("warning", message=message)
                    out.write(json.dumps(bad, ensure_ascii=False) + "\n")
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
