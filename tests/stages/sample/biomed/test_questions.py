"""The question sets: one right option by the fact table, balanced, and in words that no clean document uses."""

import random
import re
from collections import Counter

import pytest

from stages.sample.biomed import audits, questions
from stages.sample.biomed.questions import MEDQA
from stages.sample.biomed.tables import SUBJECTS, TABLES, UNIVERSAL
from stages.sample.exam import FOUR_OPTIONS, four_option_questions
from stages.sample.forms import fill

WIDTH = 13


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + WIDTH]) for i in range(len(words) - WIDTH + 1)}


def subject_entities(subject: str):
    return TABLES.rows(next(table for table, name in SUBJECTS.items() if name == subject))


def named_in(text: str, candidates: list[str]) -> str:
    """The longest of ``candidates`` that stands in ``text`` as words of its own."""
    found = [name for name in candidates if re.search(rf"(?<!\w){re.escape(name)}s?(?!\w)", text, re.IGNORECASE)]
    return max(found, key=len)


def check_one_right_option(row) -> None:
    by_name = {entity.name: entity for entity in subject_entities(row["subject"])}
    options = row["options"]
    assert len(options) == len(set(options)) == 4
    stem = re.split(r"\. ", row["question"], maxsplit=1)[1]
    if set(options) <= by_name.keys():
        attribute = named_in(stem, sorted({v for e in by_name.values() for v in dict(e.facts).values()}))
        true = [by_name[option].is_true(attribute) for option in options]
    else:
        entity = by_name[named_in(stem, list(by_name))]
        relation = next(name for name, value in entity.facts if value == options[row["answer"]])
        pool = {e.get(relation) for e in by_name.values()}
        assert set(options) <= pool, "distractors are of the same type"
        assert not (set(options) - {options[row["answer"]]}) & UNIVERSAL
        true = [entity.is_true(option) for option in options]
    assert true == [index == row["answer"] for index in range(4)], row


def test_four_option_questions_have_exactly_one_true_option(sample):
    rows = sample.questions("medqa_synthetic")
    assert len(rows) == FOUR_OPTIONS == 300
    for row in rows:
        assert list(row) == ["id", "question", "options", "answer", "subject"]
        check_one_right_option(row)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 5))])
def test_other_seeds_too(seed):
    for row in four_option_questions(random.Random(seed), MEDQA):
        check_one_right_option(row)


def test_answer_positions_and_subjects(sample):
    rows = sample.questions("medqa_synthetic")
    assert set(Counter(row["answer"] for row in rows).values()) == {75}
    subjects = Counter(row["subject"] for row in rows)
    assert subjects.keys() == set(SUBJECTS.values()) and min(subjects.values()) >= 30
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 300
    assert all(len(option) <= 45 for row in rows for option in row["options"])


def test_the_right_option_does_not_stand_in_the_question(sample):
    # By chance a table names its cause (the gene of a disease, say), but rarely.
    rows = sample.questions("medqa_synthetic")
    given = [row for row in rows if row["options"][row["answer"]].lower() in row["question"].lower()]
    assert len(given) <= 0.03 * len(rows)


def test_abstract_questions_follow_the_facts(sample):
    rows = sample.questions("pubmedqa_synthetic")
    labels = Counter(row["options"][row["answer"]] for row in rows)
    assert labels == {"yes": 82, "no": 52, "maybe": 16}
    names = [entity.name for entity in TABLES.entities]
    for row in rows:
        assert row["options"] == ["yes", "no", "maybe"]
        named = max((name for name in names if name in row["context"].split("RESULTS")[0]), key=len)
        entity = next(e for e in TABLES.entities if e.name == named)
        assert entity.name in row["question"]
        if row["answer"] == 1:
            results = row["context"].split("RESULTS: ")[1]
            assert any(value in results for _, value in entity.facts)
            assert any(value in results and not entity.is_true(value) for _, _, value in TABLES.facts)
        if row["answer"] == 0:
            assert any(value in row["context"] for _, value in entity.facts)


@pytest.mark.parametrize("name", ["medqa_synthetic", "pubmedqa_synthetic"])
def test_questions_share_no_run_of_13_words_with_clean_documents(sample, name):
    documents: set[tuple[str, ...]] = set()
    for row in sample.clean.values():
        documents |= grams(row["text"])
    for row in sample.questions(name):
        assert len(grams(row["question"])) >= 1, "too short to be found by runs of 13 words"
        assert not grams(f"{row['question']} {row.get('context', '')}") & documents


def test_contaminated_documents_hold_the_whole_question(sample):
    questions = {row["id"]: row for name in ("medqa_synthetic", "pubmedqa_synthetic") for row in sample.questions(name)}
    rows = sample.planted("contaminated")
    assert len({row["question_id"] for row in rows}) == len(rows) >= 10
    assert {row["question_id"].split("-")[0] for row in rows} == {"medqa_synthetic", "pubmedqa_synthetic"}
    for row in rows:
        text, question = sample.documents[row["id"]]["text"], questions[row["question_id"]]
        assert question["question"] in text
        assert grams(question["question"]) <= grams(text)
        assert f"Answer: {question['options'][question['answer']]}." in text


def test_findings_of_audits_share_no_run_of_13_words_with_the_exam_s():
    """Whatever the names: a page about a question's fact would be removed as contaminated."""
    entity, value, wrong = (" ".join(f"{letter}{number}" for number in range(5)) for letter in "svw")

    def sentences(forms):
        draws = [random.Random(seed).random for seed in range(60)]
        return {fill(form, draw, entity, value).replace("<W>", wrong) for form in forms for draw in draws}

    exam = sentences((*questions._SUPPORTED, *questions._REFUTED, *questions._UNDECIDED))
    runs = {run for text in exam for run in grams(text)}
    assert runs
    findings = sentences(form for verdict in (audits.YES, audits.NO, audits.MAYBE) for form in verdict.findings)
    assert [text for text in findings if grams(text) & runs] == []
