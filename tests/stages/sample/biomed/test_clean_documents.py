"""Clean documents: far from one another, acceptable to the usual quality rules, and full of the facts."""

import re
from collections import Counter
from itertools import combinations

from pytest import approx

from stages.sample.biomed.documents import SHARES
from stages.sample.biomed.planted import jaccard, shingles
from stages.sample.biomed.tables import TABLES
from stages.sample.forms import plural
from stages.sample.tables import Entity

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


def test_clean_documents_are_not_near_duplicates_of_one_another(sample):
    # Only documents that share a shingle can be similar; those on one entity are compared all with all, and
    # any others that share many shingles are found through an inverted index.
    sets = {name: shingles(row["text"]) for name, row in sample.clean.items()}
    holders: dict[tuple[str, ...], list[str]] = {}
    for name, found in sets.items():
        for shingle in found:
            holders.setdefault(shingle, []).append(name)
    shared: Counter[tuple[str, str]] = Counter()
    for names in holders.values():
        if len(names) <= 20:
            shared.update(combinations(names, 2))
    closest = shared.most_common(300)
    assert len(closest) == 300
    worst = max(jaccard(sets[one], sets[two]) for (one, two), _ in closest)
    assert worst < 0.3
    by_group: dict[str, list[str]] = {}
    for name, row in sample.clean.items():
        by_group.setdefault(row["group"], []).append(name)
    pairs = [pair for names in by_group.values() for pair in combinations(names, 2)]
    assert len(pairs) > 1000
    assert max(jaccard(sets[one], sets[two]) for one, two in pairs) < 0.3


def test_clean_documents_pass_the_usual_quality_rules(sample):
    for row in sample.clean.values():
        text = row["text"]
        words = text.split()
        lines = [line for line in text.split("\n") if line]
        assert 400 <= len(text) <= 3000
        assert len(words) >= 60
        assert 3 <= sum(map(len, words)) / len(words) <= 10
        assert len(STOP_WORDS & {word.strip(".,").lower() for word in words}) >= 2
        assert len(set(lines)) == len(lines)
        assert all(line[-1] in ".?" for line in lines)
        assert len(re.findall(r"[.?](?:\s|$)", text)) >= 5
        assert not re.search(r"[{}<>\[\]#]|\.\.\.|lorem ipsum|javascript|cookie|terms of use", text, re.IGNORECASE)


def test_few_clean_documents_repeat_themselves(sample):
    # Gopher's bounds: the commonest 2-, 3-, 4-gram below 20, 18, 16 % of the characters; words that stand in
    # repeated 5-grams below 15 %. A long name or class that is repeated can exceed a bound, so a few
    # documents may.
    over = 0
    for row in sample.clean.values():
        words = re.findall(r"\w+|[^\w\s]", row["text"])
        for width, bound in ((2, 0.20), (3, 0.18), (4, 0.16)):
            grams = Counter(" ".join(words[i : i + width]) for i in range(len(words) - width + 1))
            gram, times = grams.most_common(1)[0]
            if times > 1 and times * len(gram) > bound * len(row["text"]):
                over += 1
                break
    assert over <= 0.02 * len(sample.clean)


def test_marks_do_not_crowd_out_the_words(sample):
    # Word splitters count punctuation; Gopher wants letters in 80 % of what they give.
    low = 0
    for row in sample.clean.values():
        tokens = re.findall(r"\w+|[^\w\s]", row["text"])
        low += sum(any(map(str.isalpha, token)) for token in tokens) < 0.8 * len(tokens)
    assert low <= 0.03 * len(sample.clean)


def test_no_line_recurs_like_boilerplate(sample):
    lines = Counter(line for row in sample.clean.values() for line in set(row["text"].split("\n")) if line)
    assert max(lines.values()) <= 10


def test_every_fact_is_stated_in_every_size_and_near_its_entity(sample):
    sentences: dict[str, list[str]] = {}
    names = sorted({entity.name for entity, _, _ in TABLES.facts}, key=len, reverse=True)
    for row in sample.clean.values():
        for text in re.split(r"(?<=[.?])\s", row["text"].lower()):
            for name in names:
                if name.lower() in text:
                    sentences.setdefault(name, []).append(text)
    counts = [
        sum(value.lower() in text for text in sentences.get(entity.name, [])) for entity, _, value in TABLES.facts
    ]
    # 3 of the usual 10 megabytes: dozens of statements in the whole sample are about ten here.
    assert min(counts) >= 3
    assert sum(counts) / len(counts) >= 15


def test_answers_begin_with_the_attribute(sample):
    attributes = {value for _, _, value in TABLES.facts} | {entity.name for entity, _, _ in TABLES.facts}
    answers = [
        answer
        for row in sample.clean.values()
        if row["source"] == "synthetic_questions"
        for answer in re.findall(r"^Answer: (.*?)\. ", row["text"], re.MULTILINE)
    ]
    assert len(answers) > 2000
    verdicts = {"yes", "no", "maybe"}
    assert set(answers) <= attributes | verdicts
    assert len(set(answers) - verdicts) > 0.8 * len(attributes)  # of 3 megabytes; of the usual 10 nearly all


def test_audits_are_decided_by_the_facts(sample):
    """A page says yes only of what the tables hold, no only of what they do not, and maybe only of a subgroup."""
    audit = re.compile(r"(?:^|\n\n)([^\n]+)\n\nQuestion: ([^\n]+)\nAnswer: (yes|no|maybe)\. ")
    found = [groups for row in sample.clean.values() for groups in audit.findall(row["text"])]
    shares = {answer: number / len(found) for answer, number in Counter(answer for *_, answer in found).items()}
    assert len(found) > 500
    assert shares == {"yes": approx(0.45, abs=0.05), "no": approx(0.35, abs=0.05), "maybe": approx(0.2, abs=0.05)}
    for findings, question, answer in found:
        named = [entity for entity in TABLES.entities if entity.name.lower() in question.lower()]
        entity, claimed = max(
            ((entity, value) for entity in named for value in claimable(entity, question)),
            key=lambda claim: (len(claim[0].name), len(claim[1])),
        )
        assert entity.is_true(claimed) == (answer != "no"), question
        assert ("group" in findings) == (answer == "maybe")


def claimable(entity: Entity, question: str) -> list[str]:
    """Attributes of the entity's relations that the question has as words beside its name, plurals too."""
    rest = question.lower().replace(entity.name.lower(), "")

    def stands_in(value: str) -> bool:
        forms = "|".join(re.escape(form.lower()) for form in (value, plural(value)))
        return re.search(rf"(?<!\w)(?:{forms})(?!\w)", rest) is not None

    relations = dict(entity.facts)
    return [value for relation in relations for value in TABLES.values(entity.table, relation) if stands_in(value)]


def test_sources_have_their_shares(sample):
    for source, share in SHARES.items():
        measured = sample.counts["sources"][source]["bytes"] / sample.counts["bytes"]
        assert abs(measured - share) < 0.03
