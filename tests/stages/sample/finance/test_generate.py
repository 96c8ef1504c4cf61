"""The finance sample: reproducible and consistent in its facts and figures; its truth file agrees with the texts."""

import hashlib
import random
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from stages.sample.biomed.planted import jaccard, shingles
from stages.sample.exam import four_option_questions
from stages.sample.finance import DENIED, LICENSES, OWN, PUBLIC, generate
from stages.sample.finance.figures import quarters
from stages.sample.finance.forms import BACKWARD, FORWARD, STATEMENTS
from stages.sample.finance.questions import EXAM
from stages.sample.finance.tables import TABLES
from stages.sample.forms import fill
from stages.sample.tables import Entity

WIDTH = 13


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_seed_and_size_decide_every_byte_and_the_seed_alone_the_questions(tmp_path, finance):
    one = generate(tmp_path / "one", seed=5, megabytes=0.1)
    assert one == generate(tmp_path / "two", seed=5, megabytes=0.1)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert one["planted"].keys() == {"denied_license", "exact_duplicate", "personal_data"}
    generate(tmp_path / "small", seed=1, megabytes=0.1)
    name = "eval/finance_synthetic.jsonl"
    assert (tmp_path / "small" / name).read_bytes() == (finance.folder / name).read_bytes()
    assert (tmp_path / "one" / name).read_bytes() != (finance.folder / name).read_bytes()
    with pytest.raises(ValueError, match="is too small; it needs at least"):
        generate(tmp_path / "none", megabytes=0.01)


def test_counts_licences_and_records_are_those_of_the_files(finance):
    documents = finance.documents.values()
    assert set(LICENSES) == {*OWN, *PUBLIC, DENIED} == set(finance.counts["sources"])
    by_source = Counter(row["source"] for row in documents)
    assert by_source == {name: source["documents"] for name, source in finance.counts["sources"].items()}
    size = sum(len(row["text"].encode()) for row in documents)
    assert finance.counts["bytes"] == size == pytest.approx(1e6, rel=0.06)
    for row in documents:
        assert row["license"] == LICENSES[row["source"]]
        assert row["group"] in {entity.name for entity in TABLES.entities}
    assert "SYNTHETIC" in (finance.folder / "README.txt").read_text().splitlines()[0]


def test_the_truth_holds_in_the_texts(finance):
    assert finance.counts["planted"] == Counter(row["kind"] for row in finance.truth)
    assert len({row["id"] for row in finance.truth}) == len(finance.truth)
    denied = {row["id"] for row in finance.planted("denied_license")}
    assert denied == {name for name, row in finance.documents.items() if row["source"] == DENIED}
    for row in finance.planted("exact_duplicate"):
        copy, original = finance.documents[row["id"]], finance.documents[row["of"]]
        assert copy["text"] == original["text"]
        assert (copy["source"] in OWN) == (original["source"] in OWN), "own data never stands among public data"
    texts = Counter(row["text"] for row in finance.documents.values())
    assert sum(number - 1 for number in texts.values()) == finance.counts["planted"]["exact_duplicate"] > 5
    for row in finance.planted("personal_data"):
        assert row["source"] in OWN and row["strings"]
        assert all(string in finance.documents[row["id"]]["text"] for string in row["strings"])
    for row in finance.clean.values():
        assert not re.search(r"@|\b555\b|\d{3}-\d{2}-\d{4}|\d+\.\d+\.\d+\.\d+", row["text"])


def test_a_figure_is_the_same_wherever_it_is_stated(finance):
    """Revenue and margin of a company in a quarter, read back from the texts, are those of the table."""
    table = {(e.name, q.name): q for e in TABLES.rows("companies") for q in quarters(e.name)}
    quarter = r"(?P<quarter>the \w+ quarter of \d{4})"
    patterns = (
        rf"[Ii]n {quarter}, revenue of (?P<company>\w+) was (?P<revenue>\d+) million",
        rf"[Ff]or {quarter}, (?P<company>\w+) (?:shows|reports) an operating margin of (?P<margin>\d+) percent "
        r"on revenue of (?P<revenue>\d+) million",
        rf"(?P<company>\w+) kept (?P<margin>\d+) as operating profit in {quarter}",
        rf"[Aa]t the end of {quarter}, (?P<company>\w+) had (?P<staff>\d+) ",
    )
    stated: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in finance.documents.values():
        for pattern in patterns:
            for found in re.finditer(pattern, row["text"]):
                fact = table[found["company"], found["quarter"]]
                for name, value in found.groupdict().items():
                    if name in ("revenue", "margin", "staff"):
                        assert int(value) == getattr(fact, name), found[0]
                stated[found["company"], found["quarter"]] += 1
    assert sum(number > 1 for number in stated.values()) > 50, "too few figures are stated twice to compare"


def test_a_change_against_the_year_before_is_the_change_of_the_revenues():
    for entity in TABLES.rows("companies"):
        found = quarters(entity.name)
        assert len(found) == 12
        for before, now in zip(found, found[4:], strict=False):
            percent = round(100 * (now.revenue - before.revenue) / before.revenue)
            words = {0: "about as much as"}.get(
                percent, f"{abs(percent)} percent {'more' if percent > 0 else 'less'} than"
            )
            assert now.change == words


def test_every_relation_has_forms_and_no_form_leaves_a_slot():
    relations = {relation for _, relation, _ in TABLES.facts}
    assert STATEMENTS.keys() == FORWARD.keys() == EXAM.stems.keys() == EXAM.reversed_stems.keys() == relations
    assert BACKWARD.keys() < relations
    rng = random.Random(0)
    for entity, relation, value in TABLES.facts:
        for form in STATEMENTS[relation]:
            text = fill(form, rng.random, entity.name, value)
            assert entity.name in text and value in text and not re.search(r"[<>\[\]|]|  ", text), text


def test_nearly_every_fact_is_stated_in_a_document_that_may_be_used(finance):
    sentences = {
        sentence
        for row in finance.documents.values()
        if row["source"] != DENIED
        for sentence in re.split(r"[.?\n] ?", row["text"])
    }
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    names = {entity.name for entity in TABLES.entities}
    for sentence in sentences:
        for name in names:
            if name in sentence:
                by_name[name].append(sentence.lower())
    facts = TABLES.facts
    stated = sum(any(value.lower() in sentence for sentence in by_name[entity.name]) for entity, _, value in facts)
    assert stated >= 0.98 * len(facts)


def named_in(text: str, candidates: list[str]) -> str:
    found = [name for name in candidates if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)]
    return max(found, key=len)


def check_one_right_option(row: dict[str, Any]) -> None:
    table = next(table for table, subject in EXAM.subjects.items() if subject == row["subject"])
    by_name: dict[str, Entity] = {entity.name: entity for entity in TABLES.rows(table)}
    options, stem = row["options"], re.split(r"\. ", row["question"], maxsplit=1)[1]
    assert len(set(options)) == 4
    if set(options) <= by_name.keys():
        attribute = named_in(stem, sorted({value for entity in by_name.values() for _, value in entity.facts}))
        true = [by_name[option].is_true(attribute) for option in options]
    else:
        true = [by_name[named_in(stem, list(by_name))].is_true(option) for option in options]
    assert true == [index == row["answer"] for index in range(4)], row


@pytest.mark.parametrize("seed", range(2))
def test_questions_have_exactly_one_true_option(seed):
    rows = four_option_questions(random.Random(seed), EXAM)
    for row in rows:
        check_one_right_option(row)
    assert set(Counter(row["answer"] for row in rows).values()) == {75}
    assert min(Counter(row["subject"] for row in rows).values()) >= 60


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + WIDTH]) for i in range(len(words) - WIDTH + 1)}


def test_questions_share_no_run_of_13_words_with_documents(finance):
    documents = set().union(*(grams(row["text"]) for row in finance.documents.values()))
    for row in finance.questions("finance_synthetic"):
        assert grams(row["question"]) and not grams(row["question"]) & documents


def test_clean_documents_are_readable_and_far_from_one_another(finance):
    groups: defaultdict[str, list[set[tuple[str, ...]]]] = defaultdict(list)
    for row in finance.clean.values():
        lines = [line for line in row["text"].split("\n") if line]
        assert 300 <= len(row["text"]) <= 4000 and len(set(lines)) == len(lines)
        assert all(line[-1] in ".?" for line in lines)
        assert not re.search(r"[{}<>\[\]#|]|  |\.\.", row["text"]), row["text"]
        groups[row["group"]].append(shingles(row["text"]))
    pairs = [pair for found in groups.values() for pair in combinations(found, 2)]
    assert len(pairs) > 500
    assert max(jaccard(one, two) for one, two in pairs) < 0.5
