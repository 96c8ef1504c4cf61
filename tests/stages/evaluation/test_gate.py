"""The gate is a pure function: its properties over random scores."""

from __future__ import annotations

import random
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluation.gate import DocumentCost, GatePolicy, Scores, SetScores, gate
from stages.store import InputError
from tests.support import examples

QUICK = GatePolicy(bootstrap=300)


def make(answers: list[bool], documents: list[tuple[float, int]], unigram: float | None = 9.0) -> Scores:
    costs = {f"d{i}": DocumentCost(nll, size) for i, (nll, size) in enumerate(documents)}
    correct = {f"q{i}": answer for i, answer in enumerate(answers)}
    return Scores(costs, unigram, {"set": SetScores(correct, 0.25, 0.3)} if correct else {})


scores = st.builds(
    make,
    st.lists(st.booleans(), max_size=60),
    st.lists(st.tuples(st.floats(0.1, 1e4), st.integers(1, 5000)), min_size=1, max_size=40),
)


def shuffled(given_scores: Scores, seed: int) -> Scores:
    rng = random.Random(seed)

    def mix(items: dict) -> dict:  # type: ignore[type-arg]
        return dict(rng.sample(list(items.items()), len(items)))

    sets = {name: replace(s, correct=mix(dict(s.correct))) for name, s in given_scores.sets.items()}
    return replace(given_scores, documents=mix(dict(given_scores.documents)), sets=sets)


def scaled(given_scores: Scores, factor: float) -> Scores:
    costs = {i: DocumentCost(cost.nll * factor, cost.bytes) for i, cost in given_scores.documents.items()}
    return replace(given_scores, documents=costs)


@examples(40)
@given(scores)
def test_the_same_model_is_accepted_even_without_margins(champion: Scores) -> None:
    policy = GatePolicy(bootstrap=300, bits_per_byte_margin=0, accuracy_margin=0)
    verdict = gate(champion, champion, policy)
    assert verdict.accepted
    assert all(reason.value == pytest.approx(0, abs=1e-12) for reason in verdict.reasons)


@examples(40)
@given(scores, scores, st.integers(0, 99))
def test_the_order_of_items_changes_nothing_and_nor_does_asking_again(one: Scores, two: Scores, seed: int) -> None:
    documents = {i: two.documents.get(i, cost) for i, cost in one.documents.items()}
    sets = {
        name: replace(s, correct={i: crc32(f"{i} {seed}".encode()) % 2 == 0 for i in s.correct})
        for name, s in one.sets.items()
    }
    candidate = replace(two, documents=documents, sets=sets)
    verdict = gate(one, candidate, QUICK)
    assert gate(one, candidate, QUICK) == verdict
    assert gate(shuffled(one, seed), shuffled(candidate, seed + 1), QUICK) == verdict


@examples(40)
@given(scores, st.floats(1.02, 3.0))
def test_worse_bits_per_byte_is_rejected_and_better_accepted(champion: Scores, factor: float) -> None:
    worse = gate(champion, scaled(champion, factor), QUICK)
    assert not worse.accepted
    assert worse.reasons[0].value == pytest.approx(factor - 1)
    assert not worse.reasons[0].passed
    assert gate(champion, scaled(champion, 1 / factor), QUICK).accepted


@examples(40)
@given(scores, scores, st.floats(0, 1), st.floats(0, 1))
def test_a_wider_margin_never_turns_a_yes_into_a_no(one: Scores, two: Scores, a: float, b: float) -> None:
    candidate = replace(one, documents={i: two.documents.get(i, cost) for i, cost in one.documents.items()})
    narrow, wide = sorted((a, b))

    def accepted(margin: float) -> bool:
        policy = GatePolicy(bootstrap=200, bits_per_byte_margin=margin, accuracy_margin=margin)
        return gate(one, candidate, policy).accepted

    assert accepted(wide) >= accepted(narrow)


def answers(n: int, right: int) -> list[bool]:
    return [i < right for i in range(n)]


def test_clearly_worse_accuracy_is_rejected_and_noise_is_not() -> None:
    documents = [(100.0, 100)] * 10
    champion = make(answers(300, 150), documents)
    assert not gate(champion, make(answers(300, 110), documents), QUICK).accepted
    # 3 of 100 fewer, won and lost on different questions: within what two equal models differ by
    noise = [i < 141 if i % 2 else i < 150 for i in range(300)]
    noise[200:210] = [True] * 10
    noise[:14] = [False] * 14
    verdict = gate(champion, make(noise, documents), QUICK)
    assert 0 < 150 - sum(noise) < 20
    assert verdict.accepted


def test_a_noisy_tie_in_bits_per_byte_is_not_proof_of_being_no_worse() -> None:
    rng = random.Random(0)
    champion = make([], [(100.0, 100)] * 8)
    candidate = make([], [(100.0 * rng.choice([0.6, 1.4]), 100) for _ in range(8)])
    reason = gate(champion, candidate, QUICK).reasons[0]
    assert not reason.passed and reason.value is not None and reason.value > 0.01


def test_bits_per_byte_is_a_ratio_of_sums_over_own_bytes() -> None:
    """Another tokenizer counts other bytes; a document without any is left out of the comparison."""
    champion = make([], [(100.0, 100), (50.0, 20), (7.0, 0)])
    candidate = make([], [(98.0, 98), (45.0, 18), (0.0, 4)])
    reason = gate(champion, candidate, QUICK).reasons[0]
    assert reason.value == pytest.approx(0, abs=1e-9)
    assert "(2 documents)" in reason.text


def test_other_items_are_refused() -> None:
    champion = make(answers(4, 2), [(1.0, 1), (2.0, 2)])
    again = "score the champion again on the candidate's sets"
    with pytest.raises(InputError, match=f"different held-out documents.*d1.*{again}"):
        gate(champion, make(answers(4, 2), [(1.0, 1)]), QUICK)
    with pytest.raises(InputError, match=f"different questions of set 'set'.*q4.*{again}"):
        gate(champion, make(answers(5, 2), [(1.0, 1), (2.0, 2)]), QUICK)
    with pytest.raises(InputError, match=f"not scored on set 'set'; {again}"):
        gate(replace(champion, sets={}), champion, QUICK)


def test_a_champion_may_have_more_sets() -> None:
    champion = make(answers(4, 2), [(1.0, 1)])
    assert gate(champion, replace(champion, sets={}), QUICK).accepted


def test_without_champion_the_unigram_baseline_must_be_beaten() -> None:
    candidate = make([], [(100.0, 100)], unigram=2.0)  # 1.44 bits a byte
    assert gate(None, candidate, QUICK).accepted
    assert not gate(None, replace(candidate, unigram_bits_per_byte=1.4), QUICK).accepted
    assert not gate(None, replace(candidate, unigram_bits_per_byte=candidate.bits_per_byte), QUICK).accepted


@pytest.mark.parametrize(("right", "accepted"), [(120, True), (106, False), (100, False), (20, False)])
def test_without_champion_named_sets_must_beat_both_baselines(right: int, accepted: bool) -> None:
    """Of 300 with majority 0.3: two standard errors of 0.027 above it is 0.355, 107 questions."""
    candidate = make(answers(300, right), [(100.0, 100)])
    policy = GatePolicy(must_beat_baselines=("set",))
    verdict = gate(None, candidate, policy)
    assert verdict.accepted is accepted
    reason = verdict.reasons[1]
    p = right / 300
    assert reason.threshold == pytest.approx(0.3 + 2 * (p * (1 - p) / 299) ** 0.5)
    assert gate(None, candidate, QUICK).accepted  # a set that is not named does not count


def test_a_named_set_that_was_not_scored_is_an_error() -> None:
    with pytest.raises(InputError, match=r"must_beat_baselines contains 'other', .* scored sets: set"):
        gate(None, make(answers(4, 2), [(1.0, 1)]), GatePolicy(must_beat_baselines=("other",)))


@pytest.mark.parametrize("champion", [None, make([], [])])
def test_nothing_held_out_is_no_release(champion: Scores | None) -> None:
    verdict = gate(champion, make([], []), QUICK)
    assert not verdict.accepted
    assert "not measured" in verdict.reasons[0].text


def test_markov_is_asked_for_with_and_without_a_champion() -> None:
    documents = [(10.0, 10), (12.0, 10)]  # 1.587 bits a byte
    policy = GatePolicy(bootstrap=300, must_beat_markov=True)
    champion = make([], documents)
    for markov, passed in ((1.6, True), (1.5, False)):
        candidate = replace(champion, markov_bits_per_byte=markov)
        for other in (None, champion):
            verdict = gate(other, candidate, policy)
            reason = verdict.reasons[-1]
            assert verdict.accepted == reason.passed == passed
            assert (reason.rule, reason.threshold) == ("bits_per_byte < Markov", markov)
        assert gate(None, candidate, QUICK).accepted  # nobody asked
    with pytest.raises(InputError, match=r"set evaluation\.markov_order"):
        gate(None, champion, policy)
