"""Bits-per-byte and the unigram baseline against plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.bits_per_byte import (
    bits_per_byte,
    evaluate_documents,
    retokenize,
    score_documents,
    unigram_nll,
)
from stages.evaluation.heldout import heldout_documents, training_counts
from stages.evaluation.language_model import LanguageModel
from tests.stages.evaluation.evaluation_world import ROW, World, token_bytes
from tests.support import examples

LN2 = math.log(2)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def naive(model: LanguageModel, tokens: list[int], window: int) -> float:
    """Token by token: what comes before it in its window, and its cost."""
    total = 0.0
    for place in range(1, len(tokens)):
        start = (place - 1) // window * window
        with torch.inference_mode():
            logits = model.model(torch.tensor([tokens[start:place]])).logits[0, -1]
        total -= float(torch.log_softmax(logits.double(), dim=-1)[tokens[place]])
    return total


def test_bits_per_byte_equals_a_naive_loop(world: World) -> None:
    model = world.model()
    documents = heldout_documents(world.tokens.local(), None, None, 0)
    texts = {(source, text) for source, group in world.heldout.items() for text in group}
    assert {(d.source, world.tokenizer.decode(d.tokens)) for d in documents} == texts
    unigram = unigram_nll(training_counts(world.tokens.local(), None))
    scores = evaluate_documents(documents, token_bytes(world.tokenizer), unigram, model, ROW, None, lambda *_: None)
    assert [s.doc_id for s in scores] == sorted(d.doc_id for d in documents)
    bits, size = 0.0, 0
    for document, found in zip(documents, scores, strict=True):
        tokens = document.tokens.tolist()
        text = world.tokenizer.decode(tokens)
        counted = sum(len(t) for t in world.tokenizer.convert_ids_to_tokens(tokens[1:]))  # a character a byte
        assert len(text.encode()) - counted == len(world.tokenizer.convert_ids_to_tokens(tokens[:1])[0])
        assert found.bytes == found.unigram_bytes == counted
        assert found.nll == pytest.approx(naive(model, tokens, ROW), rel=1e-4, abs=1e-4)
        bits += found.nll / LN2
        size += counted
    assert any(len(d.tokens) > 2 * ROW for d in documents) and any(len(d.tokens) == 1 for d in documents)
    assert bits_per_byte((s.nll, s.bytes) for s in scores) == pytest.approx(bits / size)


@examples(20)
@given(
    st.lists(st.lists(st.integers(0, 250), max_size=40), min_size=1, max_size=6),
    st.integers(1, 16),
    st.sampled_from([1, 64]),
)
def test_any_documents_in_any_windows_and_batches(
    world: World, documents: list[list[int]], window: int, memory: int
) -> None:
    model = world.model(max_length=16, memory_mib=memory)
    arrays = [np.array(tokens, dtype=np.int64) for tokens in documents]
    found = score_documents(arrays, model, window, lambda *_: None)
    expected = [naive(model, tokens, window) for tokens in documents]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_unigram_baseline_counts_the_training_stream(world: World) -> None:
    counts = np.zeros(len(world.tokenizer), dtype=np.int64)
    for texts in world.train.values():
        for text in texts:
            for token in ids_of(world.tokenizer, text):
                counts[token] += 1
    assert training_counts(world.tokens.local(), None).tolist() == counts.tolist()
    costs = unigram_nll(counts)
    assert np.exp(-costs).sum() == pytest.approx(1.0)
    token = int(counts.argmax())
    assert costs[token] == pytest.approx(-math.log((counts[token] + 1) / (counts.sum() + len(counts))))
    assert costs[counts == 0] == pytest.approx(math.log(counts.sum() + len(counts)))


def test_a_limited_count_reads_a_part_of_every_source(world: World) -> None:
    whole = training_counts(world.tokens.local(), None)
    part = training_counts(world.tokens.local(), 10 * ROW)
    assert (part <= whole).all()
    assert 3 * ROW * 0.9 <= part.sum() < whole.sum() / 2


def test_the_choice_of_documents_is_fixed_and_nested(world: World) -> None:
    folder = world.tokens.local()

    def ids(documents: int | None, limit: int | None, seed: int = 0) -> set[str]:
        return {d.doc_id for d in heldout_documents(folder, documents, limit, seed)}

    whole = ids(None, None)
    assert len(whole) == sum(map(len, world.heldout.values()))
    assert ids(5, None) == ids(5, None) < ids(9, None) < whole
    assert len(ids(5, None)) == 5 and len(ids(9, None)) == 9
    assert ids(5, None) != ids(5, None, seed=1)
    assert ids(None, 1) < ids(None, 2000) < whole
    assert ids(0, None) == set()


def test_another_tokenizer_gets_the_same_texts(world: World) -> None:
    documents = heldout_documents(world.tokens.local(), None, None, 0)
    other = world.model("other").tokenizer
    for document, (tokens, size) in zip(documents, retokenize(documents, world.tokenizer, other), strict=True):
        text = world.tokenizer.decode(document.tokens)
        assert tokens.tolist() == ids_of(other, text)
        exact = sum(len(token) for token in other.convert_ids_to_tokens(tokens.tolist()[1:]))
        # Exact, but for a first token that ends inside a character.
        inside = "\ufffd" in other.decode(tokens.tolist()[:1])
        assert size == exact if not inside else exact - 3 <= size < exact


def test_the_own_tokenizer_again_changes_nothing(world: World) -> None:
    documents = heldout_documents(world.tokens.local(), None, None, 0)
    sizes = token_bytes(world.tokenizer)
    for document, (tokens, size) in zip(
        documents, retokenize(documents, world.tokenizer, world.tokenizer), strict=True
    ):
        assert tokens.tolist() == document.tokens.tolist()
        assert size == sizes[document.tokens[1:]].sum()


def test_a_text_that_names_a_special_token_is_not_one(world: World) -> None:
    from stages.evaluation.heldout import HeldoutDocument

    text = "fever <|endoftext|> drug"
    plain = world.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert world.tokenizer.eos_token_id not in plain
    document = HeldoutDocument("d", "s", np.array(plain, dtype=np.int64))
    ((tokens, _),) = retokenize([document], world.tokenizer, world.tokenizer)
    assert tokens.tolist() == plain


def test_nothing_measured_is_nan() -> None:
    assert math.isnan(bits_per_byte([]))
    assert bits_per_byte([(LN2 * 8, 1), (0.0, 3)]) == pytest.approx(2.0)
