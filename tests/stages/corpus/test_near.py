"""Words, n-grams, MinHash keys and near copies: compiled kernels against plain Python, and what must never happen."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.config import DedupConfig
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.sets import jaccard, sorted_sets
from stages.corpus.kernels.sketch import least_difference, odd_sketches
from stages.corpus.kernels.words import word_hashes
from stages.corpus.near.candidates import components
from stages.corpus.near.verify import NearCopy, near_copies, near_duplicates_of
from stages.corpus.texts import Texts

PLAIN = DedupConfig(protect_subjects=False)
any_texts = st.lists(st.text(max_size=60), max_size=8)


def plain_words(text: str) -> list[str]:
    """The words that the kernel hashes."""
    return re.findall(r"[^\W]+", "".join(c.lower()[0] if c.isalnum() or c == "_" else "\n" for c in text))


def grams_of(text: str, n: int) -> list[tuple[str, ...]]:
    found = plain_words(text)
    length = min(n, len(found))
    return [tuple(found[i : i + length]) for i in range(len(found) - length + 1)] if found else []


def similarity(first: str, second: str, n: int) -> float:
    a, b = set(grams_of(first, n)), set(grams_of(second, n))
    return len(a & b) / len(a | b) if a | b else 1.0


@settings(max_examples=300)
@given(any_texts, st.integers(1, 6))
def test_words_and_ngrams_are_the_plain_ones(found: list[str], n: int) -> None:
    texts = Texts.of(found)
    hashes, starts = word_hashes(texts.data, texts.offsets)
    grams, gram_starts = ngram_hashes(hashes, starts, n)
    names: dict[object, int] = {}
    for i, text in enumerate(found):
        mine = hashes[starts[i] : starts[i + 1]].tolist()
        assert len(mine) == len(plain_words(text))
        my_grams = grams[gram_starts[i] : gram_starts[i + 1]].tolist()
        assert len(my_grams) == len(grams_of(text, n))
        for key, value in [*zip(plain_words(text), mine, strict=True), *zip(grams_of(text, n), my_grams, strict=True)]:
            assert names.setdefault(key, value) == value
    words = {k: v for k, v in names.items() if isinstance(k, str)}
    assert len(set(words.values())) == len(words)


def test_a_word_has_the_same_hash_on_every_machine() -> None:
    texts = Texts.of(["Fever", "FEVER, İ_9"])
    hashes, starts = word_hashes(texts.data, texts.offsets)
    assert starts.tolist() == [0, 1, 3]
    assert hashes.tolist()[0] == hashes.tolist()[1] == 5151549411786620097


@given(st.lists(st.lists(st.integers(0, 40), max_size=40), min_size=2, max_size=2), st.sampled_from([0.3, 0.7, 1.0]))
def test_similarity_and_its_bound(found: list[list[int]], least: float) -> None:
    values = np.array([x * 0x9E3779B97F4A7C15 % 2**64 for one in found for x in one], np.uint64)
    starts = np.cumsum([0, *map(len, found)]).astype(np.int64)
    sets, set_starts = sorted_sets(values, starts)
    first, second = (sets[set_starts[i] : set_starts[i + 1]] for i in range(2))
    a, b = map(set, found)
    assert [len(first), len(second)] == [len(a), len(b)]
    exact = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(first, second, least) == (exact if exact >= least else 0.0)
    sketches = odd_sketches(sets, set_starts)
    assert least_difference(sketches[0], sketches[1]) <= len(a ^ b)
    assert least_difference(sketches[0], sketches[0]) == 0


def test_keys_agree_as_often_as_the_curve_says() -> None:
    """3,000 pairs of sets of 100 elements at each similarity: four standard deviations are 0.037 at most."""
    draw = np.random.default_rng(7)
    for shared, s in ((82, 82 / 118), (67, 67 / 133), (33, 33 / 167)):
        pairs = 3000
        values = draw.integers(0, 2**64, (pairs, 200 - shared), np.uint64)
        grams = np.concatenate([values[:, :100], values[:, -100:]], axis=1).reshape(-1)
        starts = np.arange(0, len(grams) + 1, 100)
        keys = band_hashes(grams, starts, 25, 5, 1)
        agree = keys[:, ::2] == keys[:, 1::2]
        assert abs(agree.mean() - s**5) < 0.01
        assert abs(agree.any(axis=0).mean() - (1 - (1 - s**5) ** 25)) < 0.037
    empty = band_hashes(grams[:0], np.zeros(2, np.int64), 25, 5, 1)
    assert (empty == NO_KEY).all()


def test_bands_that_would_miss_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="14 bands of 8 find only 56%"):
        DedupConfig(bands=14, band_rows=8)


GREEK = ["alpha", "beta", "gamma", "delta", "zeta", "eta"]
few_words = st.lists(st.lists(st.sampled_from(GREEK), max_size=25).map(" ".join), max_size=14)


@settings(max_examples=100)
@given(few_words, st.sampled_from([0.6, 0.7, 1.0]), st.sampled_from([100, 1 << 30]))
def test_every_copy_has_a_survivor_that_stays_and_is_as_similar_as_said(
    found: list[str], threshold: float, memory: int
) -> None:
    config = DedupConfig(threshold=threshold, ngram=2, bands=40, band_rows=3, protect_subjects=False)
    texts = Texts.of(found)
    copies = near_duplicates_of(texts, config)
    gone = {copy.document for copy in copies}
    for copy in copies:
        assert copy.survivor not in gone and copy.survivor < copy.document
        exact = similarity(found[copy.document], found[copy.survivor], 2)
        assert copy.similarity == exact >= threshold
    for i, text in enumerate(found):  # equal sets have equal keys, so that no copy of them stays
        for j in range(i):
            same = set(grams_of(text, 2)) == set(grams_of(found[j], 2)) != set()
            assert i in gone or j in gone or not same
    words, starts = word_hashes(texts.data, texts.offsets)
    keys = band_hashes(*ngram_hashes(words, starts, 2), 40, 3, 1)
    pieces = [keys[:, :3], keys[:, 3:]]
    rows, component_starts = components(len(found), 40, lambda band: (piece[band] for piece in pieces), memory)
    again = near_copies(
        Texts.of([found[row] for row in rows]), Texts.of([""] * len(rows)), keys[:, rows], component_starts, config
    )
    assert [NearCopy(int(rows[c.document]), int(rows[c.survivor]), c.similarity) for c in again] == sorted(
        copies, key=lambda c: rows.tolist().index(c.document)
    )


def test_near_copies_never_go_by_a_chain() -> None:
    words = [f"w{i}" for i in range(120)]
    chain = [" ".join(words[start : start + 80]) for start in range(0, 40, 8)]
    config = DedupConfig(threshold=0.75, protect_subjects=False)
    copies = near_duplicates_of(Texts.of(chain), config)
    assert [(copy.document, copy.survivor) for copy in copies] == [(1, 0), (3, 2)]


def test_a_hundred_thousand_identical_documents_leave_one() -> None:
    copies = near_duplicates_of(Texts.of(["the same few words again and again"] * 100_000), PLAIN)
    assert [copy.document for copy in copies] == list(range(1, 100_000))
    assert {(copy.survivor, copy.similarity) for copy in copies} == {(0, 1.0)}


def test_pages_of_one_template_do_not_collapse() -> None:
    """859,092 documents of another's corpus became 2, by chains of matches that nobody verified."""
    draw = np.random.default_rng(3)
    template = [f"said{i}" for i in range(14)]
    pages = []
    for _ in range(4000):
        facts = [f"fact{x}" for x in draw.integers(0, 10**9, 30)]
        pages.append(" ".join([*template, *facts]))
    pages += [f"{page} and one more" for page in pages[:50]]
    copies = near_duplicates_of(Texts.of(pages), PLAIN)
    assert sorted(copy.document for copy in copies) == list(range(4000, 4050))
    for copy in copies:
        assert similarity(pages[copy.document], pages[copy.survivor], 5) >= 0.7


def test_a_page_that_alone_names_its_subject_stays() -> None:
    body = " ".join(f"word{i}" for i in range(90))
    pages = [f"Is {name} inherited? {body}" for name in ("Roberts syndrome", "Banki syndrome", "Roberts syndrome")]
    subjects = Texts.of(["Roberts syndrome", "Banki Syndrome", "roberts syndrome"])
    texts = Texts.of(pages)
    config = DedupConfig()
    words, starts = word_hashes(texts.data, texts.offsets)
    keys = band_hashes(*ngram_hashes(words, starts, 5), config.bands, config.band_rows, config.seed)
    one = np.array([0, 3])
    assert [c.document for c in near_copies(texts, subjects, keys, one, config)] == [2]
    assert [c.document for c in near_copies(texts, subjects, keys, one, PLAIN)] == [1, 2]
