"""The evaluation stage: a model's bits-per-byte and accuracy on question sets, per item and in total."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stages.corpus import Listing
from stages.corpus.reading.inputs import write_input_list
from stages.evaluation.bits_per_byte import (
    DocumentScore,
    bits_per_byte,
    evaluate_documents,
    evaluate_texts,
    retokenize,
    unigram_nll,
)
from stages.evaluation.config import TRAIN_SUFFIX, EvaluationConfig, check_name, is_training_split
from stages.evaluation.general import GeneralText
from stages.evaluation.harness import METRICS, Task, TaskResult
from stages.evaluation.harness import run as run_harness
from stages.evaluation.heldout import heldout_documents, training_counts
from stages.evaluation.language_model import LanguageModel, cpu_threads, load_model
from stages.evaluation.markov import heldout_costs
from stages.evaluation.offline import offline
from stages.evaluation.report import COLUMNS, bits_per_byte_rows, general_row, task_row
from stages.evaluation.sets import ROLE, Baselines, Question, baselines, read_set, subset
from stages.store import Artifact, ArtifactWriter, ConfigError


def build(config: EvaluationConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Builds the artifact: `results.json`, `samples/<set>.jsonl`, `bits_per_byte.jsonl`, metrics, the table.

    Args:
        inputs: `model` and `tokens` artifacts (a model with another tokenizer than the tokens is evaluated on the same
            documents, tokenized again), one `set/<name>` per question set: its listing, and optionally `general`: a
            `GeneralText`.

    Raises:
        InputError: an invalid row in a set, or a model folder that transformers cannot load.
        ConfigError: options for a set that is not an input, or an unavailable device.
    """
    clock = _Clock()
    write_input_list(inputs, writer)
    tasks, sizes = _tasks(config, inputs, writer)
    log = writer.work("harness")
    with offline(log / "log.txt"):
        clock.lap("imports")
        model = load_model(inputs["model"].local("weights"), config)
        clock.lap("load_model")
        with cpu_threads(model, config.threads):
            documents = _bits_per_byte(config, inputs, model, writer)
            general = _general(config, inputs.get("general"), model, writer)
            clock.lap("bits_per_byte")
            results = run_harness(tasks, model, log, config.batch_size, _progress(writer, "options")) if tasks else []
            clock.lap("questions")
    _write(config, documents, general, results, sizes, writer)
    writer.events.emit("timing", seconds=clock.seconds)


def _tasks(
    config: EvaluationConfig, inputs: Mapping[str, Any], writer: ArtifactWriter
) -> tuple[list[Task], dict[str, int]]:
    """The tasks to score, and the total questions of each set. All sets are read before any is scored."""
    listings: dict[str, Listing] = {
        role.removeprefix(ROLE): item for role, item in inputs.items() if role.startswith(ROLE)
    }
    unknown = sorted(set(config.sets) - set(listings))
    if unknown:
        known = ", ".join(sorted(listings)) or "none"
        raise ConfigError(f"evaluation.sets: no input set named {', '.join(unknown)}; input sets: {known}")
    tasks: list[Task] = []
    sizes: dict[str, int] = {}
    for name, listing in sorted(listings.items()):
        check_name(name)
        if is_training_split(name):
            writer.events.emit("set_left_out", set=name, why=f"names ending in {TRAIN_SUFFIX} are never scored")
            continue
        options = config.options(name)
        found = read_set(listing, options.equal_options)
        if found.left_out:
            why = "two options are equal"
            writer.events.emit("questions_left_out", set=name, questions=len(found.left_out), why=why)
        sizes[name] = len(found.questions) + len(found.left_out)
        chosen = subset(found.questions, config.limit(name), config.seed)
        tasks += [Task(name, formulation, options, chosen) for formulation in options.formulations]
    return tasks, sizes


def _bits_per_byte(
    config: EvaluationConfig, inputs: Mapping[str, Any], model: LanguageModel, writer: ArtifactWriter
) -> list[DocumentScore]:
    tokens: Artifact = inputs["tokens"]
    folder = tokens.local()
    documents = heldout_documents(folder, config.heldout_documents, config.heldout_bytes, config.seed)
    if not documents:
        writer.events.emit("no_heldout", why="the tokens artifact has no held-out documents, or the limit is 0")
        return []
    own = None
    if not _same_tokenizer(inputs["model"], tokens):
        from transformers import AutoTokenizer

        old = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        own = retokenize(documents, old, model.tokenizer)
        writer.events.emit("tokenized_again", documents=len(documents), why="the model has another tokenizer")
    from stages.tokens.reader import TokenReader

    reader = TokenReader(folder)
    counts, token_bytes = training_counts(folder, config.unigram_tokens), np.asarray(reader.token_bytes)
    scores = evaluate_documents(
        documents,
        token_bytes,
        unigram_nll(counts),
        model,
        reader.sequence_length,
        own,
        _progress(writer, "windows"),
    )
    if config.markov_order is None:
        return scores
    bytes_per_token = float(counts @ token_bytes) / max(1, int(counts.sum()))
    costs = heldout_costs(folder, documents, config.markov_order, config.markov_bytes, bytes_per_token)
    return [replace(score, markov_nll=cost) for score, cost in zip(scores, costs, strict=True)]


GENERAL = "general"
"""Role of general text among the inputs, and its name in metrics and tables."""
_GENERAL_WINDOW = 1024
"""Tokens of context at most: general text is not cut into the training's rows."""


def _general(
    config: EvaluationConfig, general: GeneralText | None, model: LanguageModel, writer: ArtifactWriter
) -> list[DocumentScore]:
    if general is None:
        return []
    texts = general.excerpts(config.general_bytes, config.seed)
    writer.details["general_text"] = general.origin
    return evaluate_texts(texts, GENERAL, model, _GENERAL_WINDOW, _progress(writer, "windows"))


def _same_tokenizer(model: Artifact, tokens: Artifact) -> bool:
    """Whether both tokenizers give the same ids; differences in formatting do not count."""
    parts = []
    for artifact, path in ((model, "weights/tokenizer.json"), (tokens, "tokenizer/tokenizer.json")):
        try:
            content = json.loads(artifact.read(path))
        except FileNotFoundError:
            return False
        parts.append([content.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")])
    return bool(parts[0] == parts[1])


def _write(
    config: EvaluationConfig,
    documents: Sequence[DocumentScore],
    general: Sequence[DocumentScore],
    results: Sequence[TaskResult],
    sizes: Mapping[str, int],
    writer: ArtifactWriter,
) -> None:
    rows: list[list[Any]] = []
    summary: dict[str, Any] = {"bits_per_byte": _document_totals(documents), "sets": {}}
    for source, totals in summary["bits_per_byte"].items():
        rows += bits_per_byte_rows(source, totals, config.markov_order)
        suffix = "" if source == "all" else f"/{source}"
        writer.metrics[f"bits_per_byte{suffix}"] = totals["bits_per_byte"]
        for baseline in ("unigram", "markov"):
            if baseline in totals:
                writer.metrics[f"bits_per_byte_{baseline}{suffix}"] = totals[baseline]
        writer.events.emit("score", measure="bits_per_byte", source=source, **totals)
    if general:
        total = bits_per_byte((score.nll, score.bytes) for score in general)
        summary[GENERAL] = {"bits_per_byte": total, "documents": len(general)}
        writer.metrics[f"bits_per_byte_{GENERAL}"] = total
        rows.append(general_row(total, len(general)))
        writer.events.emit("score", measure="bits_per_byte", source=GENERAL, **summary[GENERAL])
        writer.put(f"{GENERAL}.jsonl", _json_lines(score.record() for score in general))
    by_set: dict[str, list[TaskResult]] = {}
    for result in results:
        by_set.setdefault(result.task.set, []).append(result)
    for name, group in by_set.items():
        questions = group[0].task.questions
        base = baselines(questions)
        summary["sets"][name] = _set_summary(name, group, base, sizes[name])
        for result in group:
            _set_metrics(writer.metrics, result, base)
            rows.append(task_row(result, base, sizes[name]))
            key = METRICS[result.task.options.normalise if result.task.formulation == "cloze" else "none"]
            writer.events.emit(
                "score",
                measure="accuracy",
                set=name,
                formulation=result.task.formulation,
                accuracy=result.accuracy[key],
                stderr=result.stderr[key],
                questions=len(questions),
                truncated=result.truncated,
            )
        lines = (record for result in group for record in result.records)
        writer.put(f"samples/{name}.jsonl", _json_lines(lines))
        writer.counts[f"questions/{name}"] = len(questions)
    writer.put("bits_per_byte.jsonl", _json_lines(score.record() for score in documents))
    writer.put("results.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False).encode())
    writer.counts["heldout_documents"] = len(documents)
    writer.details["table"] = {"columns": COLUMNS, "rows": rows}
    writer.details["seed"] = config.seed


def _document_totals(documents: Sequence[DocumentScore]) -> dict[str, dict[str, Any]]:
    """Totals over all documents (`all`) and, if there are several, of each source. Empty without documents."""
    sources = sorted({score.source for score in documents})
    groups = {"all": documents} if any(score.bytes and score.unigram_bytes for score in documents) else {}
    if len(sources) > 1:
        by_source = {source: [score for score in documents if score.source == source] for source in sources}
        groups |= {source: group for source, group in by_source.items() if any(s.bytes for s in group)}
    return {name: _totals(group) for name, group in groups.items()}


def _totals(documents: Sequence[DocumentScore]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "bits_per_byte": bits_per_byte((score.nll, score.bytes) for score in documents),
        "unigram": bits_per_byte((score.unigram_nll, score.unigram_bytes) for score in documents),
    }
    markov = [(score.markov_nll, score.unigram_bytes) for score in documents if score.markov_nll is not None]
    if markov:
        found["markov"] = bits_per_byte(markov)
    return found | {"documents": len(documents), "bytes": sum(score.bytes for score in documents)}


def _set_summary(name: str, group: Sequence[TaskResult], base: Baselines, size: int) -> dict[str, Any]:
    questions: Sequence[Question] = group[0].task.questions
    return {
        "questions": len(questions),
        "of": size,
        "random": base.random,
        "majority": base.majority,
        "normalise": group[0].task.options.normalise,
        "formulations": {
            result.task.formulation: {
                "accuracy": result.accuracy,
                "stderr": result.stderr,
                "truncated": result.truncated,
            }
            for result in group
        },
    }


def _set_metrics(metrics: dict[str, float], result: TaskResult, base: Baselines) -> None:
    name, form = result.task.set, result.task.formulation
    key = METRICS[result.task.options.normalise if form == "cloze" else "none"]
    metrics[f"{name}/accuracy_{form}"] = result.accuracy[key]
    if form == "cloze":
        for normalise, metric in METRICS.items():
            metrics[f"{name}/accuracy_cloze_{normalise}"] = result.accuracy[metric]
        metrics[f"{name}/stderr"] = result.stderr[key]
        metrics[f"{name}/random"], metrics[f"{name}/majority"] = base.random, base.majority


def _json_lines(records: Any) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n" for record in records)


class _Clock:
    """Seconds of each part, for the `timing` event."""

    def __init__(self) -> None:
        self.last, self.seconds = time.perf_counter(), dict[str, float]()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self.last, 3)
        self.last = now


def _progress(writer: ArtifactWriter, unit: str) -> Any:
    """A callback that emits progress after every fiftieth, and at the end."""
    last = -math.inf

    def report(done: int, total: int) -> None:
        nonlocal last
        if done == total or done - last >= total / 50:
            last = done
            writer.events.progress(done, total, unit)

    return report
