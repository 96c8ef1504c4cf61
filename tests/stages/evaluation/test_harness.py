"""lm-eval's figures against a computation that is as plain as can be."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation import harness, scoring
from stages.evaluation.config import SetConfig
from stages.evaluation.encoding import EncodedQuestion, encode_question
from stages.evaluation.harness import Task, TaskResult
from stages.evaluation.language_model import LanguageModel
from stages.evaluation.offline import offline
from stages.evaluation.scoring import score, shares_prompts
from stages.evaluation.sets import Question, read_set
from tests.stages.evaluation.evaluation_world import World, crossing_tokenizer, make_questions, write_set
from tests.support import examples


def questions(tmp_path: Path, count: int, **kwargs: Any) -> list[Question]:
    return read_set(write_set(tmp_path / "questions.jsonl", make_questions(count, **kwargs))).questions


def evaluate(tasks: Sequence[Task], model: LanguageModel, folder: Path) -> list[TaskResult]:
    with offline(folder / "log.txt"):
        return harness.run(tasks, model, folder, None, lambda done, total: None)


def naive(model: LanguageModel, prompt: list[int], option: list[int]) -> float:
    """log P(option | prompt): one sequence, no padding, no batch."""
    with torch.inference_mode():
        logits = model.model(torch.tensor([prompt + option])).logits[0]
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    return sum(float(logprobs[len(prompt) + place - 1, token]) for place, token in enumerate(option))


def encode(model: LanguageModel, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_cloze_equals_a_naive_computation(world: World, tmp_path: Path) -> None:
    model = world.model(max_length=64)
    rows = questions(tmp_path, 12)
    (result,) = evaluate([Task("s", "cloze", SetConfig(), rows)], model, tmp_path)
    correct: list[bool] = []
    correct_norm: list[bool] = []
    correct_bytes: list[bool] = []
    for row, record in zip(rows, result.records, strict=True):
        prompt = encode(model, f"Question: {row.question}\nAnswer:")
        options = [encode(model, f" {option}") for option in row.options]
        assert len(prompt) + max(map(len, options)) <= model.max_length  # nothing is cut here
        expected = np.array([naive(model, prompt, option) for option in options])
        assert record["loglikelihoods"] == pytest.approx(expected.tolist(), abs=1e-3)
        assert (record["id"], record["gold"]) == (row.id, row.answer)
        characters = np.array([len(option) for option in row.options])
        size = np.array([len(option.encode()) for option in row.options])
        assert (record["characters"], record["bytes"]) == (characters.tolist(), size.tolist())
        predictions = [int(np.argmax(values)) for values in (expected, expected / characters, expected / size)]
        names = ("prediction", "prediction_characters", "prediction_bytes")
        assert [record[name] for name in names] == predictions
        for hits, prediction in zip((correct, correct_norm, correct_bytes), predictions, strict=True):
            hits.append(prediction == row.answer)
    for metric, hits in (("acc", correct), ("acc_norm", correct_norm), ("acc_bytes", correct_bytes)):
        assert result.accuracy[metric] == pytest.approx(np.mean(hits))
        assert result.stderr[metric] == pytest.approx(np.std(hits, ddof=1) / np.sqrt(len(hits)))


def test_letters_are_scored_after_the_listed_options(world: World, tmp_path: Path) -> None:
    model = world.model()
    row = Question("q", "Why {options}?", ("one", "two", "three"), 2, context="Because {question}.")
    task = Task("s", "letter", SetConfig(formulations=("cloze", "letter")), [row])
    text = "Because {question}.\n\nQuestion: Why {options}?\nA. one\nB. two\nC. three\nAnswer:"
    assert task.prompt(row) == text
    (result,) = evaluate([task], model, tmp_path)
    expected = [naive(model, encode(model, text)[-63:], encode(model, f" {letter}")) for letter in "ABC"]
    assert result.records[0]["loglikelihoods"] == pytest.approx(expected, abs=1e-3)


def test_stock_lm_eval_gives_the_same(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared prompts against lm-eval's own forward passes, with and without a context that must be cut."""
    model = world.model()
    short = Task("short", "cloze", SetConfig(), questions(tmp_path, 15))
    long = Task("long", "cloze", SetConfig(), questions(tmp_path, 15, options=3, context=True))
    shared = evaluate([short, long], model, tmp_path)
    truncated = sum(
        len(encode(model, long.prompt(q))) + max(len(encode(model, f" {option}")) for option in q.options)
        > model.max_length + 1
        for q in long.questions
    )
    assert [result.truncated for result in shared] == [0, truncated] and truncated
    monkeypatch.setattr(harness, "shares_prompts", lambda model: False)
    for ours, stock in zip(shared, evaluate([short, long], model, tmp_path), strict=True):
        for one, two in zip(ours.records, stock.records, strict=True):
            assert one["loglikelihoods"] == pytest.approx(two["loglikelihoods"], abs=1e-3)
        assert ours.accuracy == stock.accuracy
        assert ours.stderr == stock.stderr
        assert ours.truncated == stock.truncated


def test_an_option_longer_than_the_context_is_cut(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = world.model(max_length=16)
    row = Question("q", "What?", ("病" * 60, "fever"), 1)
    task = Task("s", "cloze", SetConfig(), [row])
    (ours,) = evaluate([task], model, tmp_path)
    assert all(np.isfinite(ours.records[0]["loglikelihoods"]))
    monkeypatch.setattr(harness, "shares_prompts", lambda model: False)
    (stock,) = evaluate([task], model, tmp_path)
    assert ours.records[0]["loglikelihoods"][0] == pytest.approx(stock.records[0]["loglikelihoods"][0], abs=1e-3)


def test_a_tokenizer_whose_tokens_cross_into_the_option_is_scored(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(world.model(), tokenizer=crossing_tokenizer())
    task = Task("s", "cloze", SetConfig(prompt="{question}:"), [Question("q", "Answer", ("kid", "lung", "x"), 0)])
    question = encode_question(model.tokenizer, "Answer:", [" kid", " lung", " x"])
    expected = [naive(model, question.context, option) for option in question.options]
    for shares in (True, False):
        monkeypatch.setattr(harness, "shares_prompts", lambda model, shares=shares: shares)
        (result,) = evaluate([task], model, tmp_path)
        assert result.records[0]["loglikelihoods"] == pytest.approx(expected, abs=1e-3)


tokens = st.integers(0, 250)


@examples(25)
@given(
    st.lists(
        st.tuples(
            st.lists(tokens, min_size=1, max_size=30),
            st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 3),
)
def test_any_options_of_any_prompts_equal_the_naive_computation(
    world: World, prompts: list[tuple[list[int], list[list[int]]]], batch_size: int
) -> None:
    model = world.model(max_length=24)
    encoded = [EncodedQuestion(prompt, options) for prompt, options in prompts]
    reported: list[int] = []
    answers = score(encoded, model, batch_size, reported.append)
    assert sum(reported) == sum(len(options) for _, options in prompts)
    for (prompt, options), scored in zip(prompts, answers, strict=True):
        cut = prompt[-(model.max_length + 1 - max(map(len, options))) :]
        for option, (value, greedy) in zip(options, scored, strict=True):
            assert value == pytest.approx(naive(model, cut, option), abs=2e-3)
            assert isinstance(greedy, bool)


@examples(10)
@given(
    st.lists(
        st.tuples(
            # Few prompts, so that several questions have the same.
            st.sampled_from([[5], [7, 8, 9], list(range(30))]),
            st.lists(st.lists(tokens, min_size=1, max_size=30), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(),
)
def test_the_score_of_a_question_is_its_own(
    world: World, prompts: list[tuple[list[int], list[list[int]]]], rng: random.Random
) -> None:
    model = world.model(max_length=24)
    encoded = [EncodedQuestion(prompt, options) for prompt, options in prompts]
    order = rng.sample(range(len(encoded)), len(encoded))
    together = score([encoded[number] for number in order], model, None, lambda _: None)
    for number, scored in zip(order, together, strict=True):
        (alone,) = score([encoded[number]], model, None, lambda _: None)
        assert [value for value, _ in scored] == pytest.approx([value for value, _ in alone], abs=2e-3)


def test_questions_with_equal_prompts_are_sequences_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and memory are linear in the questions: no sequence grows with them, nor with long options of one."""
    model, lengths = world.model(max_length=24), []
    forward = scoring._forward
    monkeypatch.setattr(
        scoring, "_forward", lambda batch, model: lengths.extend(g.length for g in batch) or forward(batch, model)
    )
    score([EncodedQuestion([1, 2, 3], [[4, 5], [6]])] * 40, model, None, lambda _: None)
    assert lengths == [4] * 40
    lengths.clear()
    score([EncodedQuestion([1, 2, 3], [[4] * 90] * 6)], model, None, lambda _: None)
    assert lengths == [24] * 6


def test_greedy_answers_are_marked(world: World) -> None:
    model = world.model()
    prompt = [5, 6, 7]
    with torch.inference_mode():
        best = int(model.model(torch.tensor([prompt])).logits[0, -1].argmax())
    (scored,) = score([EncodedQuestion(prompt, [[best], [(best + 1) % 200]])], model, None, lambda _: None)
    assert [greedy for _, greedy in scored] == [True, False]


def test_shared_prompts_are_refused_where_a_model_does_not_attend_to_all(world: World) -> None:
    model = world.model()
    assert shares_prompts(model)
    model.model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not shares_prompts(model)


def test_shared_prompts_are_refused_where_a_model_ignores_the_mask(world: World) -> None:
    model = world.model()

    class Deaf:
        config, dtype = model.model.config, model.model.dtype

        def __call__(self, ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
            return model.model(ids, **kwargs)

    assert not shares_prompts(replace(model, model=Deaf()))


def test_texts_that_look_like_something_else_stay_texts(world: World, tmp_path: Path) -> None:
    """Digits, dates and lists are what data loaders like to turn into other types."""
    rows = [
        Question("2020-01-01", "12", ("2020-01-01", "2021-01-01"), 0),
        Question("2020-01-02", "13", ("2020-02-01", "2021-03-01"), 1),
    ]
    model = world.model()
    (result,) = evaluate([Task("s", "cloze", SetConfig(prompt="{question}"), rows)], model, tmp_path)
    assert [record["id"] for record in result.records] == ["2020-01-01", "2020-01-02"]
    for row, record in zip(rows, result.records, strict=True):
        expected = [naive(model, encode(model, row.question), encode(model, f" {text}")) for text in row.options]
        assert record["loglikelihoods"] == pytest.approx(expected, abs=1e-3)


def test_nothing_is_printed_and_the_log_goes_to_its_file(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[tuple[int, int]] = []
    task = Task("s", "cloze", SetConfig(), questions(tmp_path, 5))
    with offline(tmp_path / "log.txt"):
        harness.run([task], world.model(), tmp_path, 2, lambda done, total: reported.append((done, total)))
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "log.txt").read_text()
    assert reported[-1] == (20, 20)


def test_the_task_file_and_configuration_are_plain_lm_eval(world: World, tmp_path: Path) -> None:
    task = Task("s", "cloze", SetConfig(), questions(tmp_path, 3))
    evaluate([task], world.model(), tmp_path)
    config = task.config(tmp_path / "s__cloze.parquet", tmp_path / "cache")
    assert json.loads(json.dumps(config)) == config
    columns = pq.read_schema(tmp_path / "s__cloze.parquet").names
    assert {config["doc_to_text"], config["doc_to_choice"], config["doc_to_target"]} <= set(columns)
