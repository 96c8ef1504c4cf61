"""The Markov baseline against its definition written down plainly, and against what it must cost in known cases."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stages.evaluation as ev
from stages.evaluation import EvaluationConfig
from stages.evaluation.heldout import heldout_documents
from stages.evaluation.markov import BEFORE, STRENGTHS, MarkovModel, heldout_costs
from stages.evaluation.token_text import TokenText
from stages.store import ConfigError
from tests.stages.evaluation.evaluation_world import World, write_tokens
from tests.support import examples


def stream(documents: list[bytes], order: int) -> np.ndarray:
    pieces = [[BEFORE] * order + list(document) for document in documents]
    return np.array([symbol for piece in pieces for symbol in piece], np.uint16)


def fitted(counted: list[bytes], validation: list[bytes], order: int) -> MarkovModel:
    return MarkovModel.fit(stream(counted, order), stream(validation, order), order)


def plain(training: list[bytes], strengths: list[float], context: tuple[int, ...], byte: int) -> float:
    """The formula as it stands, with the strength of each order from 0 on; the context's bytes oldest first."""
    if not strengths:
        return 1 / 256
    order = len(strengths) - 1
    following: Counter[int] = Counter()
    for document in training:
        padded = [BEFORE] * order + list(document)
        for i, then in enumerate(document):
            if tuple(padded[i : i + order]) == context:
                following[then] += 1
    below = plain(training, strengths[:-1], context[1:], byte)
    return (following[byte] + strengths[-1] * below) / (following.total() + strengths[-1])


def costs(training: list[bytes], strengths: list[float], documents: list[bytes]) -> list[float]:
    order = len(strengths) - 1
    found = []
    for document in documents:
        padded = [BEFORE] * order + list(document)
        found += [
            -math.log(plain(training, strengths, tuple(padded[i : i + order]), byte)) for i, byte in enumerate(document)
        ]
    return found


bodies = st.lists(st.lists(st.sampled_from(b"aab\xff"), max_size=12).map(bytes), max_size=4)
new_bodies = st.lists(st.lists(st.sampled_from(b"ab\xffz"), min_size=1, max_size=6).map(bytes), min_size=1, max_size=3)


@examples(50)
@given(bodies, bodies, new_bodies, st.integers(0, 3))
def test_costs_are_those_of_the_definition(
    counted: list[bytes], validation: list[bytes], new: list[bytes], order: int
) -> None:
    model = fitted(counted, validation, order)
    assert len(model.strengths) == order + 1
    wanted = costs([*counted, *validation], model.strengths, new)
    np.testing.assert_allclose(model.nll(stream(new, order)), wanted, rtol=1e-9)


@examples(15)
@given(bodies, new_bodies, st.integers(0, 2))
def test_each_strength_is_the_best_for_the_validation(counted: list[bytes], new: list[bytes], order: int) -> None:
    chosen = fitted(counted, new, order).strengths
    for k in range(order + 1):
        by_strength = {s: sum(costs(counted, [*chosen[:k], s], new)) for s in STRENGTHS}
        assert by_strength[chosen[k]] == pytest.approx(min(by_strength.values()), rel=1e-12)


@pytest.mark.parametrize("context", [b"", b"ab", b"abra", b"zz", b"\x00a"])
def test_the_256_bytes_add_up_to_one(context: bytes) -> None:
    model = fitted([b"abracadabra"], [b"abba"], 3)
    last = [model.nll(stream([context + bytes([byte])], 3))[-1] for byte in range(256)]
    assert np.exp(-np.array(last)).sum() == pytest.approx(1)


def test_a_source_of_its_own_order_costs_its_entropy() -> None:
    rng = np.random.default_rng(3)
    likely = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0.25] * 4, [0.4, 0.4, 0.1, 0.1]])
    state, found = 0, []
    for draw in rng.random(60_000).tolist():
        state = min(int(np.searchsorted(likely[state].cumsum(), draw)), 3)
        found.append(b"ACGT"[state])
    counted, validation, new = bytes(found[:36_000]), bytes(found[36_000:40_000]), bytes(found[40_000:])
    cost = {k: float(fitted([counted], [validation], k).nll(stream([new], k)).mean()) for k in (0, 1, 4, 9)}
    stationary = np.linalg.matrix_power(likely, 60)[0]
    entropy = float(-(stationary[:, None] * likely * np.log(likely)).sum())
    assert cost[1] == pytest.approx(entropy, rel=0.01)
    assert cost[0] > 1.05 * entropy
    assert cost[4] == pytest.approx(cost[1], rel=0.005)  # orders that teach nothing do next to no harm
    assert cost[9] == pytest.approx(cost[1], rel=0.005)


def test_contexts_do_not_cross_documents() -> None:
    model = fitted([b"ax", b"by"] * 50, [b"ax", b"by"], 2)
    apart, together = model.nll(stream([b"a", b"b"], 2)), model.nll(stream([b"ab"], 2))
    assert apart[0] == together[0]
    assert apart[1] < 1 < together[1]


def test_an_order_without_room_is_refused_with_the_highest_that_has() -> None:
    with pytest.raises(ConfigError, match="24 is too high for documents of 256 distinct bytes; the maximum is 6"):
        fitted([bytes(range(200))], [bytes(range(100, 256))], 24)
    assert fitted([b"ACGTN" * 3], [], 19).nll(stream([b"ACGTN" * 3], 19)).shape == (15,)


def test_what_tokens_stand_for(world: World) -> None:
    folder = world.tokens.local()
    text = TokenText.load(folder, world.tokenizer.eos_token_id, np.array([BEFORE, BEFORE], np.uint16))
    ids = world.tokenizer("naïve π-helix 病")["input_ids"]
    assert bytes(text.of(np.array(ids, np.uint16)).tolist()) == "naïve π-helix 病".encode()
    ended = text.of(np.array([ids[0], world.tokenizer.eos_token_id]))
    assert ended.tolist()[-2:] == [BEFORE, BEFORE] and len(text.of(np.empty(0, np.int64))) == 0


@pytest.mark.parametrize("order", [1, 4])
def test_heldout_documents_cost_what_their_texts_cost(world: World, order: int) -> None:
    folder = world.tokens.local()
    documents = heldout_documents(folder, None, None, 0)
    found = heldout_costs(folder, documents, order, None, 3.0)
    training = [text.encode() for source in sorted(world.train) for text in world.train[source]]
    model = fitted([t for i, t in enumerate(training, 1) if i % 10], training[9::10], order)
    for document, cost in zip(documents, found, strict=True):
        text = world.tokenizer.decode(document.tokens).encode()
        first = len(world.tokenizer.decode(document.tokens[:1]).encode())
        assert cost == pytest.approx(float(model.nll(stream([text], order))[first:].sum()))
    fewer = heldout_costs(folder, documents, order, 3000, 3.0)
    assert sum(fewer) > sum(found)  # less is counted


def test_the_artifact_has_the_baseline_beside_the_model(world: World) -> None:
    def made(**fields: int) -> tuple[dict[str, float], list[list[str]]]:
        config = EvaluationConfig(device="cpu", threads=1, **fields)
        artifact = ev.evaluation.run(config, {"model": world.models["one"], "tokens": world.tokens}, world.store)
        found = [json.loads(line) for line in artifact.read("bits_per_byte.jsonl").splitlines()]
        assert all((row["markov_nll"] is None) == (not fields) for row in found)
        if fields:
            total = sum(row["markov_nll"] for row in found) / math.log(2) / sum(row["unigram_bytes"] for row in found)
            assert artifact.manifest.metrics["bits_per_byte_markov"] == pytest.approx(total)
        return artifact.manifest.metrics, ev.table(artifact)[1]

    without, plain_rows = made()
    metrics, rows = made(markov_order=3)
    assert not [name for name in without if "markov" in name]
    assert {name for name in metrics if "markov" in name} == {
        "bits_per_byte_markov", "bits_per_byte_markov/books", "bits_per_byte_markov/notes"
    }  # fmt: skip
    assert without.items() <= metrics.items() and len(rows) == 2 * len(plain_rows)
    assert rows[0][2] == "bits per byte" and rows[0][-1] == "not below unigram and Markov"
    assert rows[1][2] == "bits per byte, Markov order 3" and rows[1][-1] == "below unigram"
    assert rows[1][3] == f"{metrics['bits_per_byte_markov']:.3f}"


def test_limits_spread_over_shards(world: World, tmp_path: Path) -> None:
    def file(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    texts = ["a" * 200] * 20 + ["b" * 200] * 20
    write_tokens(file, world.tokenizer, {"": {"letters": texts}, "heldout": {"letters": ["ab ba"]}})
    documents = heldout_documents(tmp_path, None, None, 0)
    half = heldout_costs(tmp_path, documents, 2, 4000, 1.0)
    assert half[0] < heldout_costs(tmp_path, documents, 2, 1, 1.0)[0] + 50  # letters of the last shards are known
