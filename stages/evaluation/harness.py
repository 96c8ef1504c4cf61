"""Scores question sets with lm-evaluation-harness, on local files, with its `hf` model class (with the forward passes
of `scoring.py`).

Each (set, formulation) becomes one lm-eval task of type `multiple_choice`: a plain configuration over a file with the
columns `prompt`, `choices`, `gold`, so that stock lm-eval gives the same figures with both, apart from what
`encoding.py` says. Prompts longer than the model's context are truncated on the left, and counted. Metrics are
lm-eval's `acc` (highest log-likelihood), `acc_norm` (per character of the option) and `acc_bytes` (per byte), each with
the standard error of the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.evaluation.config import Formulation, SetConfig
from stages.evaluation.encoding import EncodedQuestion, encode_question
from stages.evaluation.language_model import LanguageModel
from stages.evaluation.scoring import Answer, score, shares_prompts
from stages.evaluation.sets import Question
from stages.questions.answers import LETTERS

Progress = Callable[[int, int], None]
"""Called with (scored, total) options."""

METRICS = {"none": "acc", "characters": "acc_norm", "bytes": "acc_bytes"}
"""lm-eval's name of each normalisation."""

_SCHEMA = pa.schema(
    [("id", pa.string()), ("prompt", pa.string()), ("choices", pa.list_(pa.string())), ("gold", pa.int64())]
)


@dataclass(frozen=True)
class Task:
    """One set in one formulation, with the questions that are scored."""

    set: str
    formulation: Formulation
    options: SetConfig
    questions: Sequence[Question]

    @property
    def name(self) -> str:
        return f"{self.set}__{self.formulation}"

    def prompt(self, question: Question) -> str:
        """The prompt, which the answer follows after one space."""
        template = self.options.prompt if self.formulation == "cloze" else self.options.letter_prompt
        lines = "\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(question.options))
        text = _fill(template, {"question": question.question, "options": lines})
        if question.context:
            text = _fill(self.options.context_prompt, {"context": question.context}) + text
        return text

    def choices(self, question: Question) -> list[str]:
        if self.formulation == "cloze":
            return list(question.options)
        return list(LETTERS[: len(question.options)])

    def write(self, file: Path) -> None:
        """Writes the rows for lm-eval. Parquet, since `datasets` converts texts that look like dates in JSON Lines."""
        rows = [
            {"id": q.id, "prompt": self.prompt(q), "choices": self.choices(q), "gold": q.answer} for q in self.questions
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file)

    def config(self, file: Path, cache: Path) -> dict[str, Any]:
        """The lm-eval task configuration over `file`."""
        return {
            "task": self.name,
            "dataset_path": "parquet",
            "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(cache)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": " ",
            "num_fewshot": 0,
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS.values()
            ],
            "metadata": {"version": 1},
        }


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces `{name}` by values in one pass, so that braces inside a question are not replaced."""
    parts, rest = [], template
    while rest:
        found = [(rest.find(f"{{{name}}}"), name) for name in values]
        found = [(at, name) for at, name in found if at >= 0]
        if not found:
            break
        at, name = min(found)
        parts += [rest[:at], values[name]]
        rest = rest[at + len(name) + 2 :]
    return "".join([*parts, rest])


@dataclass(frozen=True)
class TaskResult:
    """Scores of one task and its per-question records."""

    task: Task
    accuracy: dict[str, float]
    """By metric: `acc`, `acc_norm`, `acc_bytes`."""
    stderr: dict[str, float]
    records: list[dict[str, Any]]
    """Per question, in the order of the task: id, formulation, gold, predictions, per option the log-likelihood in
    nats and the length in characters and bytes."""
    truncated: int
    """Questions that are longer than the model's context with one of their options."""


def run(
    tasks: Sequence[Task], model: LanguageModel, work: Path, batch_size: int | None, progress: Progress
) -> list[TaskResult]:
    """Scores all tasks in one call of lm-eval, which sorts their prompts by length. Call it inside `offline`.

    Args:
        work: folder for the task files and the cache of `datasets`; nothing outside it is written.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    configs = []
    for task in tasks:
        file = work / f"{task.name}.parquet"
        task.write(file)
        configs.append(task.config(file, work / "cache"))
    loaded = TaskManager(include_defaults=False).load(configs)
    lm = _harness_model(model, batch_size, progress)
    results = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=1, log_samples=True)
    assert results is not None  # None is for other ranks of a distributed run
    return [
        _result(task, results["results"][task.name], results["samples"][task.name], lm.truncated[task.name])
        for task in tasks
    ]


def _harness_model(model: LanguageModel, batch_size: int | None, progress: Progress) -> Any:
    import torch
    from lm_eval.models.huggingface import HFLM

    shared = shares_prompts(model)

    class LocalModel(HFLM):
        """lm-eval's `hf` class around a loaded model: no bars, calls `progress`, shares prompts between options."""

        truncated: Counter[str]
        """Questions that were truncated, by task."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            """Answers to the requests, in their order; those of one question are encoded and truncated together."""
            places: dict[tuple[str, int], list[int]] = {}
            for place, request in enumerate(requests):
                places.setdefault((request.task_name, request.doc_id), []).append(place)
            questions = [
                encode_question(self.tokenizer, requests[own[0]].args[0], [requests[place].args[1] for place in own])
                for own in places.values()
            ]
            self.truncated = Counter(
                task
                for (task, _), question in zip(places, questions, strict=True)
                if question.is_longer_than(model.max_length)
            )
            counter = _AnswerCounter(len(requests), progress)
            if shared:
                scored = score(questions, model, batch_size, counter.add)
            else:
                scored = self._score_one_by_one(questions, counter)
            answers = [(0.0, False)] * len(requests)
            for own, found in zip(places.values(), scored, strict=True):
                for place, answer in zip(own, found, strict=True):
                    answers[place] = answer
            return answers

        def _score_one_by_one(
            self, questions: Sequence[EncodedQuestion], counter: _AnswerCounter
        ) -> list[list[Answer]]:
            """As `score`, by lm-eval's own forward passes."""
            self.cache_hook = counter
            torch.set_num_threads(torch.get_num_threads() * model.workers)  # one forward pass at a time, on all threads
            cut = [question.truncate(model.max_length) for question in questions]
            # lm-eval's first field is the text, for its cache; it only distinguishes requests here.
            requests = [
                ((str(number), str(place)), question.context, option)
                for number, question in enumerate(cut)
                for place, option in enumerate(question.options)
            ]
            longest = max(len(context) + len(option) for _, context, option in requests)
            self.batch_size_per_gpu = batch_size or model.batch_size(min(longest, model.max_length))
            answers = iter(self._loglikelihood_tokens(requests, disable_tqdm=True))
            return [[next(answers) for _ in question.options] for question in questions]

    return LocalModel(
        pretrained=model.model, tokenizer=model.tokenizer, backend="causal", batch_size=1, max_length=model.max_length
    )


class _AnswerCounter:
    """Counts answers. Also used as lm-eval's cache hook, which is called once per answer."""

    def __init__(self, total: int, progress: Progress):
        self.total, self.progress, self.done = total, progress, 0

    def add(self, count: int) -> None:
        self.done += count
        self.progress(self.done, self.total)

    def add_partial(self, *_: Any) -> None:
        self.add(1)


def _result(task: Task, figures: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], truncated: int) -> TaskResult:
    by_id = {sample["doc"]["id"]: sample for sample in samples}
    records = [_record(task, q, by_id[q.id]) for q in task.questions]
    return TaskResult(
        task,
        {name: float(figures[f"{name},none"]) for name in METRICS.values()},
        {name: _stderr(figures[f"{name}_stderr,none"]) for name in METRICS.values()},
        records,
        truncated,
    )


def _stderr(value: Any) -> float:
    """lm-eval's value is `N/A` or NaN for a single question."""
    return float(value) if isinstance(value, float | int) and value == value else 0.0


def _record(task: Task, question: Question, sample: Mapping[str, Any]) -> dict[str, Any]:
    scores = [float(score) for score, _greedy in sample["filtered_resps"]]
    choices = task.choices(question)
    characters = [len(text) for text in choices]
    size = [len(text.encode()) for text in choices]
    return {
        "id": question.id,
        "formulation": task.formulation,
        "gold": question.answer,
        "prediction": _best(scores),
        "prediction_characters": _best([s / n for s, n in zip(scores, characters, strict=True)]),
        "prediction_bytes": _best([s / n for s, n in zip(scores, size, strict=True)]),
        "loglikelihoods": scores,
        "characters": characters,
        "bytes": size,
        **({"subject": question.subject} if question.subject else {}),
    }


def _best(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equal ones, like numpy's argmax in lm-eval."""
    return max(range(len(values)), key=values.__getitem__)
