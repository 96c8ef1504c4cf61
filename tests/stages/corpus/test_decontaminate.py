from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.corpus import list_files
from stages.corpus.config import DecontaminationConfig
from stages.corpus.decontaminate import Index, clean_subsets
from stages.corpus.evaluation_items import Item, read_items
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.policy import Removal
from stages.corpus.texts import Texts
from stages.evaluation.sets import question_sets, read_set
from stages.sample.biomed import generate
from stages.store import InputError
from tests.stages.corpus.corpus_world import plain_words, sentence, write_lines
from tests.support import SHARED, examples

Gram = tuple[str, ...]


def words_in(texts: Sequence[str | bytes]) -> tuple[np.ndarray, np.ndarray]:
    batch = Texts.of(texts)
    return word_hashes(batch.data, batch.offsets)


def plain_grams(text: str, n: int) -> set[Gram]:
    found = plain_words(text)
    n = min(n, len(found))
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)} if n else set()


def plain_index(items: Sequence[Item], config: DecontaminationConfig) -> list[set[Gram]]:
    least = min(config.minimum_words, config.ngram_size)
    return [
        plain_grams(item.asked, config.ngram_size).union(
            *(plain_grams(text, config.ngram_size) for text in item.contexts if len(plain_words(text)) >= least)
        )
        for item in items
    ]


def plain_hits(text: str, grams: set[Gram]) -> int:
    found = plain_words(text)
    return sum(
        any(tuple(found[i : i + len(gram)]) == gram for i in range(len(found) - len(gram) + 1)) for gram in grams
    )


def plain_removal(text: str, names: list[str], index: list[set[Gram]], minimum: int) -> Removal | None:
    hits = [plain_hits(text, grams) for grams in index]
    held = [i for i, n in enumerate(hits) if n and n >= min(minimum, len(index[i]))]
    if not held:
        return None
    best = max(held, key=lambda i: (hits[i], -i))
    detail = f"{names[best]}: {hits[best]} of its {len(index[best])} n-grams"
    return Removal("contaminated", hits[best], min(minimum, len(index[best])), detail)


few_words = st.lists(st.sampled_from(["a", "b", "B", "Σ", "no", "😀", "_", "1"]), max_size=9).map(" ".join)
some_text = st.one_of(few_words, few_words, st.text(max_size=12))
rows = st.lists(
    st.fixed_dictionaries(
        {"question": some_text},
        optional={
            "options": st.lists(some_text, min_size=2, max_size=3),
            "answer": st.integers(0, 1),
            "context": st.one_of(some_text, st.lists(some_text, max_size=3)),
        },
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@examples(50)
@given(rows, st.lists(some_text, max_size=6), st.integers(1, 8), st.integers(1, 6), st.integers(1, 3))
@example([{"question": "a b no"}, {"question": "!"}], ["a b no", "a b", "", "b a b no a"], 3, 3, 2)
def test_matches_are_those_of_the_plain_twin(
    folder: Path, asked: list[dict[str, Any]], texts: list[str], ngram: int, least: int, minimum: int
) -> None:
    config = DecontaminationConfig(ngram_size=ngram, minimum_words=least, minimum_hits=minimum)
    sets = {"exam": list_files(write_lines(folder / "exam.jsonl", asked))}
    index = Index.of(sets, config)
    items = list(read_items(sets))
    plain = plain_index(items, config)
    assert index.names == [item.name for item in items]
    assert index.totals.tolist() == [len(grams) for grams in plain]
    index.save(folder / "index.npz")
    for one in (index, Index.load(folder / "index.npz")):
        found = words_in(texts)
        wanted = {i: plain_removal(text, list(index.names), plain, minimum) for i, text in enumerate(texts)}
        assert one.matches(*found).removals(config) == {i: removal for i, removal in wanted.items() if removal}
        seen = [any(plain_hits(text, grams) for text in texts) for grams in plain]
        assert one.matches(*found).seen.tolist() == seen


def test_more_matches_than_there_is_room_for_at_first(tmp_path: Path) -> None:
    listing = list_files(write_lines(tmp_path / "exam.jsonl", [{"question": "no"}, {"question": "no no"}]))
    index = Index.of({"exam": listing}, DecontaminationConfig())
    removals = index.matches(*words_in(["no " * 5000, "yes", "no"] * 2)).removals(DecontaminationConfig())
    assert {row: removal.detail for row, removal in removals.items()} == dict.fromkeys(
        (0, 2, 3, 5), "exam/1: 1 of its 1 n-grams"
    )


QUESTION = "Which of these drugs is given first to an adult with newly found type two diabetes and normal kidneys?"
SHORT = "What gene is altered in classic cystic fibrosis today?"
TERSE = "Chemotactic cytokine is"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    asked: list[dict[str, Any]] = [
        {"id": "q1", "question": QUESTION, "options": ["Insulin", "Metformin at a low dose"], "answer": 1},
        {"id": "q2", "question": SHORT, "answer": "CFTR", "context": {"a": [sentence(77)], "b": "is it too short"}},
        {"id": "q3", "question": TERSE, "options": {"A": "IL-8", "B": "IL-2"}, "answer": "A"},
        {"id": "q4", "question": "Is it rare?", "options": ["yes", "no"], "answer": None},
        {"id": "q5", "question": "?"},
    ]
    listing = list_files(write_lines(tmp_path / "exam.jsonl", asked))
    return Index.of({"exam": listing}, DecontaminationConfig())


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        (f"{sentence(1)} {QUESTION.upper()} {sentence(2)}", "exam/q1: 7 of its 12 n-grams"),
        (f"{QUESTION}\n- Metformin, at a low dose!", "exam/q1: 12 of its 12 n-grams"),
        (" ".join(QUESTION.split()[:12]) + " " + sentence(4), None),
        (" ".join(QUESTION.split()[8:]) + " Metformin", None),
        (" ".join(QUESTION.split()[8:]) + " Metformin at", "exam/q1: 1 of its 12"),
        (" ".join(QUESTION.split()[8:]) + " Insulin Insulin Insulin", None),
        (f"As they ask: {SHORT} CFTR. {sentence(2)}", "exam/q2: 1 of its"),
        (f"As they ask: {SHORT} Or another? CFTR.", None),
        (f"{sentence(3)} {' '.join(sentence(77).split()[:20])}", "exam/q2: 8 of its"),
        ("is it too short", None),
        ("They say: chemotactic cytokine is (IL 8)", "exam/q3: 1 of its 1 n-grams"),
        ("Chemotactic cytokine is IL", None),
        ("Chemotactic cytokine is IL-2", None),
        ("Is it rare? " + sentence(4), "exam/q4: 1 of its 1 n-grams"),
        ("? !", None),
        ("", None),
    ],
)
def test_contamination_is_thirteen_words_in_a_row_or_the_whole(index: Index, text: str, evidence: str | None) -> None:
    removals = index.matches(*words_in([sentence(9), text])).removals(DecontaminationConfig())
    assert list(removals) == ([1] if evidence else [])
    if evidence:
        assert removals[1].detail.startswith(evidence)


def test_without_sets_nothing_is_found() -> None:
    index = Index.of({}, DecontaminationConfig())
    assert index.matches(*words_in([QUESTION])).removals(DecontaminationConfig()) == {}
    assert len(index) == len(index.matches(*words_in([QUESTION])).seen) == 0


def test_clean_subsets_hold_the_rows_of_items_that_no_document_held(tmp_path: Path) -> None:
    def row(number: int) -> bytes:
        return b'{"question":  "%s", "id": %d, "more": "\xc3\xa9"}' % (sentence(number, 9).encode(), number)

    packed = tmp_path / "b" / "part.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + row(1) + b"\r\n\n" + row(2) + b"\r\n" + row(3)))
    sets = {
        "b": list_files(packed.parent),
        "a_train": list_files(write_lines(tmp_path / "a.jsonl", [row(4), row(5)])),
        "none": list_files(write_lines(tmp_path / "n.jsonl", [row(2)])),
    }
    index = Index.of(sets, DecontaminationConfig())
    seen = (
        index.matches(*words_in([sentence(2, 9), "other"])).seen
        | index.matches(*words_in([f"x {sentence(5, 9)} y"])).seen
    )
    put: dict[str, bytes] = {}
    clean_subsets(sets, seen, index, put.__setitem__)
    lines = put.pop("clean.jsonl").decode().splitlines()
    assert put == {"clean/b.jsonl": row(1) + b"\n" + row(3) + b"\n", "clean/a_train.jsonl": row(4) + b"\n"}
    noted = [json.loads(line) for line in lines]
    assert [(note["set"], note["id"], note["clean"]) for note in noted] == [
        ("a_train", "4", True),
        ("a_train", "5", False),
        ("b", "1", True),
        ("b", "2", False),
        ("b", "3", True),
        ("none", "2", False),
    ]
    assert all(note["ngrams"] == max(1, len(plain_words(sentence(int(note["id"]), 9))) - 12) for note in noted)


def test_evaluation_reads_clean_subsets_as_sets(tmp_path: Path) -> None:
    asked = [{"id": i, "question": sentence(i, 9), "options": ["yes", "no"], "answer": i % 2} for i in range(6)]
    sets = {"exam": list_files(write_lines(tmp_path / "exam.jsonl", asked))}
    index = Index.of(sets, DecontaminationConfig())

    def put(name: str, data: bytes) -> None:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)

    clean_subsets(sets, index.matches(*words_in([f"{sentence(4, 9)} Yes."])).seen, index, put)
    found = question_sets(tmp_path / "out" / "clean")
    assert list(found) == ["exam"]
    assert [question.id for question in read_set(list_files(found["exam"])).questions] == ["0", "1", "2", "3", "5"]


def test_a_set_that_changes_during_the_run_is_an_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.jsonl", [{"id": 1, "question": "a"}, {"id": 2, "question": "b"}])
    sets = {"x": list_files(path)}
    index = Index.of(sets, DecontaminationConfig())
    for ids in ([1], [1, 3], [1, 2, 3]):
        write_lines(path, [{"id": number, "question": "a"} for number in ids])
        with pytest.raises(InputError, match=r"changed (during the run|since this run listed it)"):
            clean_subsets(sets, np.zeros(2, bool), index, lambda name, data: None)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'{"question": "q"}\n{"id": 3}\n', r"x\.jsonl:2: no field 'question'; the fields are: id"),
        ("x.jsonl.gz", gzip.compress(b'{"question": "q"}\n' * 9000)[:-30], r"x\.jsonl\.gz: .*truncated or damaged"),
        ("x.jsonl", b"\n", "no questions"),
        ("x.txt", b"question", "has no questions"),
        ("x.jsonl", b'{"question": "q", "options": ["a", "b"], "answer": 2}', r"x\.jsonl:1: answer 2 is not one"),
    ],
)
def test_a_set_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"evaluation set exam: .*{message}"):
        list(read_items({"exam": list_files(tmp_path)}))
    with pytest.raises(InputError, match="may have letters"):
        list(read_items({"../exam": list_files(tmp_path)}))


def test_of_the_sample_just_the_contaminated_documents_go(tmp_path: Path) -> None:
    generate(tmp_path, seed=5, megabytes=1)
    sets = {path.stem: list_files(path) for path in (tmp_path / "eval").glob("*.jsonl")}
    index = Index.of(sets, DecontaminationConfig())
    truth = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    planted = {row["id"]: row["question_id"] for row in truth if row["kind"] == "contaminated"}
    found: dict[str, str] = {}
    for path in sorted(tmp_path.glob("documents/*/*.jsonl.gz")):
        documents = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        removals = index.matches(*words_in([row["text"] for row in documents])).removals(DecontaminationConfig())
        found |= {documents[row]["id"]: removal.detail.split(": ")[0] for row, removal in removals.items()}
    assert found.keys() == planted.keys() and len(planted) > 3
    assert all(found[name].endswith(f"/{question}") for name, question in planted.items())


REAL = SHARED / "eval"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real question was looked for: the sets are not at {REAL}")
def test_every_real_item_is_found_where_it_stands_and_nothing_in_other_text() -> None:
    sets = {path.stem: list_files(path) for path in sorted(REAL.glob("*.jsonl"))}
    config = DecontaminationConfig()
    index = Index.of(sets, config)
    items = list(read_items(sets))
    texts = [f"{sentence(i)} {item.asked} {sentence(i + 1)}" for i, item in enumerate(items)]
    found = index.matches(*words_in(texts))
    assert found.seen.all() and len(items) == 4333
    mine = dict(zip(zip(found.rows.tolist(), found.items.tolist(), strict=True), found.hits.tolist(), strict=True))
    assert all(mine[i, i] >= len(plain_grams(item.asked, config.ngram_size)) for i, item in enumerate(items))
    contexts = [(i, text) for i, item in enumerate(items) for text in item.contexts if len(plain_words(text)) >= 8]
    found = index.matches(*words_in([text for _, text in contexts]))
    pairs = set(zip(found.rows.tolist(), found.items.tolist(), strict=True))
    assert len(contexts) > 1000 and all((k, i) in pairs for k, (i, _) in enumerate(contexts))
    assert index.matches(*words_in([sentence(i) for i in range(2000)])).removals(config) == {}
