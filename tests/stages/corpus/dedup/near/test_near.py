"""Near copies: kernels against plain Python, and what must never happen."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.corpus_near import near_duplicates_of
from stages.corpus.config import DedupConfig
from stages.corpus.dedup.near import verify
from stages.corpus.dedup.near.candidates import PART_KEYS, components
from stages.corpus.dedup.near.verify import NearCopy, WordLists, key_groups, near_copies
from stages.corpus.kernels.jaccard import count_shared, insert_ngrams, least_difference, sizes_and_sketches, slots_for
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.texts import Texts
from tests.support import examples

PLAIN = DedupConfig(protect_subjects=False)
Gram = tuple[str, ...]


def grams_of(text: str, n: int) -> set[Gram]:
    """Independent of the kernels: tuples of words."""
    found = re.findall(r"\w+", text.lower())
    length = min(n, len(found))
    return {tuple(found[i : i + length]) for i in range(len(found) - length + 1)} if found else set()


def similarity(first: str, second: str, n: int) -> float:
    a, b = grams_of(first, n), grams_of(second, n)
    return len(a & b) / len(a | b) if a | b else 1.0


def keys_of(texts: Texts, config: DedupConfig) -> np.ndarray:
    grams = ngram_hashes(*word_hashes(texts.data, texts.offsets), config.ngram_size)
    return band_hashes(*grams, config.bands, config.band_rows, config.seed)


word_lists = st.lists(st.lists(st.sampled_from("abcdef"), max_size=40).map(" ".join), min_size=2, max_size=2)


@examples(50)
@given(word_lists, st.integers(1, 6), st.integers(0, 20))
def test_common_ngrams_and_the_bound_of_sketches(found: list[str], n: int, least: int) -> None:
    a, b = (grams_of(text, n) for text in found)
    texts = Texts.of(found)
    words, starts = word_hashes(texts.data, texts.offsets)
    sizes, sketches = sizes_and_sketches(words, starts[:-1], starts[1:], n)
    assert sizes.tolist() == [len(a), len(b)]
    assert least_difference(sketches[0], sketches[1]) <= len(a ^ b)
    assert least_difference(sketches[0], sketches[0]) == 0
    if not a or not b:
        return
    slots = slots_for(int(starts[1]))
    table, seen = np.empty(slots, np.uint64), np.zeros(slots, np.int64)
    assert insert_ngrams(words, 0, starts[1], n, table, np.zeros_like(sketches[0])) == len(a)
    expected = len(a & b)
    assert count_shared(words, starts[1], starts[2], n, table, slots, seen, 1, 0) == expected
    assert count_shared(words, starts[1], starts[2], n, table, slots, seen, 2, least) in (
        {expected, -1} if expected < least else {expected}
    )


any_keys = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 2**63, 2**63 + 1, 2**63 + 8, NO_KEY]), min_size=3, max_size=3), max_size=12
)


@examples(50)
@given(any_keys, st.sampled_from([1, 4, PART_KEYS]), st.sampled_from([1, 2, 4]))
def test_components_and_groups_are_those_of_plain_python(rows: list[list[int]], part_keys: int, threads: int) -> None:
    keys = np.array(rows, np.uint64).reshape(len(rows), 3).T.copy()
    label = list(range(len(rows)))
    for band in range(3):
        for i, j in itertools.combinations(range(len(rows)), 2):
            if rows[i][band] == rows[j][band] != NO_KEY:
                old, new = max(label[i], label[j]), min(label[i], label[j])
                label = [new if x == old else x for x in label]
    expected = [[i for i in range(len(rows)) if label[i] == x] for x in sorted(set(label))]
    found, starts = components(len(rows), 3, lambda band: keys[band], threads, part_keys)
    assert [found[a:b].tolist() for a, b in itertools.pairwise(starts.tolist())] == [x for x in expected if len(x) > 1]
    groups, count = key_groups(keys)
    assert set(groups[groups >= 0].tolist()) == set(range(count))
    for band, i, j in itertools.product(range(3), range(len(rows)), range(len(rows))):
        if i != j:
            same = rows[i][band] == rows[j][band] != NO_KEY
            assert same == (groups[i, band] == groups[j, band] >= 0)


def test_keys_may_all_lie_in_one_part_of_their_range() -> None:
    keys = np.concatenate([np.arange(3000, dtype=np.uint64)] * 2)
    rows, starts = components(6000, 1, lambda band: keys, part_keys=100)
    assert rows.reshape(-1, 2).tolist() == [[i, i + 3000] for i in range(3000)]
    assert starts.tolist() == list(range(0, 6001, 2))


def plain_copies(found: list[str], keys: np.ndarray, config: DedupConfig) -> list[tuple[int, int, float]]:
    stay: list[int] = []
    copies = []
    for i, text in enumerate(found):
        candidates = [j for j in stay if any(a == b != NO_KEY for a, b in zip(keys[:, i], keys[:, j], strict=True))]
        values = [(similarity(text, found[j], config.ngram_size), -j) for j in candidates]
        value, place = max(values, default=(0.0, 0))
        if candidates and value >= config.similarity_threshold:
            copies.append((i, -place, value))
        else:
            stay.append(i)
    return copies


GREEK = ["alpha", "beta", "gamma", "delta", "zeta", "eta"]
few_words = st.lists(st.lists(st.sampled_from(GREEK), max_size=25).map(" ".join), max_size=14)


@examples(50)
@given(few_words, st.sampled_from([(0.7, 25, 5), (0.6, 60, 4), (0.9, 25, 5), (1.0, 3, 2)]), st.integers(1, 5))
def test_near_copies_are_those_of_plain_python(found: list[str], how: tuple[float, int, int], n: int) -> None:
    threshold, bands, rows = how
    config = DedupConfig(
        similarity_threshold=threshold, ngram_size=n, bands=bands, band_rows=rows, protect_subjects=False
    )
    texts = Texts.of(found)
    keys = keys_of(texts, config)
    expected = [NearCopy(*copy) for copy in plain_copies(found, keys, config)]
    assert near_duplicates_of(texts, config) == expected
    assert near_copies(WordLists.of(texts), WordLists.empty(len(found)), keys, config) == expected


def test_near_copies_never_go_by_a_chain() -> None:
    words = [f"w{i}" for i in range(120)]
    chain = [" ".join(words[start : start + 80]) for start in range(0, 40, 8)]
    config = DedupConfig(similarity_threshold=0.75, protect_subjects=False)
    copies = near_duplicates_of(Texts.of(chain), config)
    assert [(copy.document, copy.survivor) for copy in copies] == [(1, 0), (3, 2)]


def test_a_hundred_thousand_identical_documents_leave_one() -> None:
    copies = near_duplicates_of(Texts.of(["the same few words again and again"] * 100_000), PLAIN)
    assert [copy.document for copy in copies] == list(range(1, 100_000))
    assert {(copy.survivor, copy.similarity) for copy in copies} == {(0, 1.0)}


@pytest.fixture(scope="module")
def template() -> list[str]:
    """100,000 pages of one template, 14 words of 44, then 500 that add three words to one of them."""
    draw = np.random.default_rng(3)
    said = " ".join(f"said{i}" for i in range(14))
    facts = draw.integers(0, 10**9, (100_000, 30)).tolist()
    pages = [f"{said} {' '.join(map(str, mine))}" for mine in facts]
    return pages + [f"{pages[i * 150]} and one more" for i in range(500)]


def test_a_hundred_thousand_pages_of_one_template_do_not_collapse(template: list[str]) -> None:
    """859,092 documents of another's corpus became 2, by chains of matches that nobody verified."""
    copies = near_duplicates_of(Texts.of(template), PLAIN)
    assert [(copy.document, copy.survivor) for copy in copies] == [(100_000 + i, i * 150) for i in range(500)]
    for copy in copies[:50]:
        assert copy.similarity == similarity(template[copy.document], template[copy.survivor], 5) >= 0.7


def test_pages_that_share_keys_with_very_many_still_find_their_copies(
    template: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound on comparisons is reached by all; rare keys come first, so that hardly a copy is missed."""
    monkeypatch.setattr(verify, "MOST_COMPARED", 20)
    said = " ".join(f"said{i}" for i in range(60))
    pages = [f"{said} {page}" for page in template[:3000]]
    pages += [f"{page} and one more" for page in pages[:500]]
    copies = near_duplicates_of(Texts.of(pages), DedupConfig(similarity_threshold=0.8, protect_subjects=False))
    right = sum(copy.survivor == copy.document - 3000 for copy in copies)
    assert right >= 490 and len(copies) == right


SYNDROMES = ("Roberts syndrome", "Banki syndrome", "Roberts syndrome")


def test_a_page_that_alone_names_its_subject_stays() -> None:
    body = " ".join(f"word{i}" for i in range(90))
    texts = Texts.of([f"Is {name} inherited? {body}" for name in SYNDROMES])
    subjects = ["Roberts syndrome", "Banki Syndrome", "roberts syndrome"]
    keys = keys_of(texts, DedupConfig())

    def gone(subjects: list[str], config: DedupConfig) -> list[int]:
        copies = near_copies(WordLists.of(texts), WordLists.of(Texts.of(subjects)), keys, config)
        return [copy.document for copy in copies]

    assert gone(subjects, DedupConfig()) == [2]
    assert gone(subjects, PLAIN) == [1, 2]
    assert gone(["", "", ""], DedupConfig()) == [1, 2]
    # Named in neither text: then the survivor says what the document does.
    assert gone(["Roberts syndrome", "Anders syndrome", "Roberts syndrome"], DedupConfig()) == [1, 2]
    # The same subject by name, in whatever words the texts speak of it.
    assert gone(["Banki syndrome", "Banki syndrome", ""], DedupConfig()) == [1, 2]


def test_copies_of_real_text_are_found_and_measured_right() -> None:
    """5 % of a page's words replaced, 400 pages: nearly all pairs at the threshold lose one side, no other does."""
    draw = np.random.default_rng(5)
    vocabulary = np.array([f"word{i}" for i in range(5000)])
    pages = [draw.choice(vocabulary, draw.integers(20, 300)) for _ in range(400)]
    copies = [np.where(draw.random(len(page)) < 0.05, draw.choice(vocabulary, len(page)), page) for page in pages]
    texts = [" ".join(page) for page in pages + copies]
    found = {copy.document: copy for copy in near_duplicates_of(Texts.of(texts), PLAIN)}
    for copy in found.values():
        assert copy.similarity == similarity(texts[copy.document], texts[copy.survivor], 5) >= 0.7
    due = [i for i in range(400) if similarity(texts[i], texts[400 + i], 5) >= 0.7]
    assert len(due) > 100 and sum(400 + i in found for i in due) >= 0.98 * len(due)
