"""From a run's step to its documents and back, as plain values for the command line and other programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.runs import TracedRun, find_run
from stages.provenance.batch_log import BatchStatus
from stages.store import ConfigError, InputError, Store
from stages.tokens.batch import rank_slots
from stages.tokens.order import Order
from stages.tokens.reader import Document, TokenReader
from stages.tokens.trace import documents_at, find_documents, samples_of, tables_folder
from stages.training.preflight.plan import run_order


def batch_documents(store: str, name: str, step: int, rank: int | None, ranks: int | None) -> dict[str, Any]:
    """The documents in one batch (of one rank), as plain values.

    Raises:
        ConfigError: the run has no such step or rank.
        StoreError: no such run.
    """
    run, reader, order = _open(store, name)
    batch, streams = run.config.data.global_batch_size, run.config.data.streams
    if not 0 <= step < run.config.steps:
        raise ConfigError(f"{run.name} has steps 0 to {run.config.steps - 1}, not {step}")
    status = run.log.status(step)
    ranks = ranks or status.ranks or max(1, run.config.parallelism.workers)
    if rank is not None and not 0 <= rank < ranks:
        raise ConfigError(f"step {step} of {run.name} was shared by ranks 0 to {ranks - 1}, not by rank {rank}")
    slots = np.arange(batch) if rank is None else np.sort(rank_slots(batch, rank, ranks, streams))
    seen = documents_at(order, reader, step * batch + slots)
    return {
        "run": run.name,
        "step": step,
        "state": status.state,
        "discarded": status.discarded,
        "fate": _describe(status),
        "ranks": ranks,
        "rank": rank,
        "samples": len(slots),
        "rows_per_sample": order.rows_per_sample_at(step * batch),
        "documents": [{"slot": line.position % batch, **_without_position(line._asdict())} for line in seen],
    }


def document_steps(store: str, name: str, document: str) -> dict[str, Any]:
    """Every step of a run that read a document, given by its id or its uri, as plain values.

    Raises:
        InputError: no such document in the run's tokens.
        StoreError: no such run.
    """
    run, reader, order = _open(store, name)
    heldout = TokenReader(reader.folder, "heldout")
    training, held_out = find_documents(reader, document), find_documents(heldout, document)
    if not training and not held_out:
        raise InputError(
            f"{run.tokens} holds no document with the id or uri {document!r}; the corpus's ledger lists removed "
            "documents and why they were removed"
        )
    batch, steps = run.config.data.global_batch_size, []
    for line in samples_of(order, reader, training):
        step, slot = divmod(line.position, batch)
        status = run.log.status(step)
        place: dict[str, Any] = {"step": step, "slot": slot, "state": status.state, "discarded": status.discarded}
        place["fate"] = _describe(status)
        steps.append(place | _without_position(line._asdict()))
    described = [_document(reader, item, held_out=False) for item in training]
    described += [_document(heldout, item, held_out=True) for item in held_out]
    return {"run": run.name, "documents": described, "steps": steps}


def _open(store: str, name: str) -> tuple[TracedRun, TokenReader, Order]:
    run = find_run(Store(store), name)
    reader = TokenReader(tables_folder(Store(store), run.tokens))
    return run, reader, run_order(reader.shards, run.tokens_digest, run.config)


def _describe(status: BatchStatus) -> str:
    """A batch's status in words."""
    if not status.discarded or status.state == "discarded":
        return status.state
    times = "once" if status.discarded == 1 else f"{status.discarded} times"
    return f"{status.state}, discarded {times} before"


def _document(reader: TokenReader, document: Document, *, held_out: bool) -> dict[str, Any]:
    return {
        "source": reader.shards.sources[document.source],
        "doc_id": document.doc_id,
        "uri": document.uri,
        "license": document.license,
        "tokens": document.length,
        "held_out": held_out,
    }


def _without_position(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "position"}
