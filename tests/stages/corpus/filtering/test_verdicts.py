"""The fast filters against datatrove's: every verdict, reason and text equal."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import socket
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.filtering.config import (
    C4Config,
    FilterConfig,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    LengthConfig,
)
from stages.corpus.filtering.filters import Filters
from stages.corpus.filtering.step import datatrove_defaults
from stages.corpus.texts import Texts
from tests.stages.corpus.corpus_world import sentence
from tests.stages.corpus.filtering.oracle import NoLanguage, datatrove_filters, expected, measured
from tests.support import SHARED, examples

MEDQUAD = SHARED / "medquad"


def only(**filters: object) -> FilterConfig:
    """A config with no filters but these."""
    return FilterConfig.model_validate({"languages": [], "quality": None, "repetition": None, "c4": None, **filters})


@cache
def pair(name: str) -> tuple[Filters, list]:  # type: ignore[type-arg]
    """The fast filters and datatrove's, of a config."""
    return Filters(CONFIGS[name], NoLanguage()), datatrove_filters(CONFIGS[name])


CONFIGS = {
    "defaults": datatrove_defaults(),
    "quality": only(
        quality=GopherQualityConfig(
            minimum_words=2, maximum_words=30, minimum_mean_word_length=1.5, maximum_mean_word_length=6,
            maximum_bullet_lines=0.5, minimum_alphabetic_words=0.4, minimum_stop_words=1,
        )
    ),
    "nothing but symbols": only(
        quality=GopherQualityConfig(
            minimum_words=0, minimum_mean_word_length=3, minimum_alphabetic_words=0.3, minimum_stop_words=0,
            maximum_symbol_ratio=0.2,
        )
    ),
    "lines": only(
        repetition=GopherRepetitionConfig(
            minimum_words=0, duplicate_lines=0.3, duplicate_paragraphs=0.4, duplicate_line_characters=0.2,
            duplicate_paragraph_characters=0.3, top_ngrams={}, duplicate_ngrams={},
        )
    ),
    "characters of lines": only(
        repetition=GopherRepetitionConfig(
            minimum_words=0, duplicate_lines=0, duplicate_paragraphs=0, duplicate_line_characters=0.15,
            duplicate_paragraph_characters=0.3, top_ngrams={}, duplicate_ngrams={},
        )
    ),
    "n-grams": only(
        repetition=GopherRepetitionConfig(
            minimum_words=0, duplicate_lines=0, duplicate_paragraphs=0, duplicate_line_characters=0,
            duplicate_paragraph_characters=0, top_ngrams={1: 0.5, 2: 0.4, 4: 0.35},
            duplicate_ngrams={2: 0.6, 3: 0.4, 5: 0.3, 9: 0.2},
        )
    ),
    "repeated n-grams": only(
        repetition=GopherRepetitionConfig(
            minimum_words=0, duplicate_lines=0, duplicate_paragraphs=0, duplicate_line_characters=0,
            duplicate_paragraph_characters=0, top_ngrams={}, duplicate_ngrams={2: 0.7, 3: 0.3, 4: 0.25},
        )
    ),
    "strict C4": only(
        c4=C4Config(terminal_punctuation=True, minimum_words_per_line=2, minimum_sentences=2, curly_bracket=True)
    ),
    "short words": only(c4=C4Config(maximum_word_length=6, minimum_words_per_line=1, minimum_sentences=3)),
    "every line": only(c4=C4Config(maximum_word_length=-1, minimum_words_per_line=0, minimum_sentences=4)),
    "no citations": only(
        c4=C4Config(
            minimum_words_per_line=-1, citations=False, javascript_lines=False, policy_lines=False, lorem_ipsum=False,
            minimum_sentences=-1,
        )
    ),
    "web": only(
        fineweb=FineWebConfig(
            minimum_punctuated_lines=0.3, short_line_characters=8, maximum_short_lines=0.6,
            maximum_duplicate_characters=0.2,
        )
    ),
    "web after C4": only(c4=C4Config(minimum_sentences=0), fineweb=FineWebConfig(maximum_line_breaks=0.2)),
}  # fmt: skip

WORDS = """the of and be to that have with The patient patient's dose fever. can't e.g. U.S. 5mg/kg x a aa aaa ab b # ##
... … wait... - • -x *item {code} [1] [23] [٣] [] [edit] [citation needed] [edit note [[4]] word[5]. end.[6] JavaScript
javaſcript java[7]script Lorem ipsum lorem terms of use Terms Privacy policy cookie Cookie use cookies uses
coo\u212aies. "quoted." '' 'so' yes! no? “curly” .. . ? ! ; 你好。 世界 é e\u0301 😀 \0 \ufffd 123 4,5 (see) :) --
well-known"""
PARTS = [*WORDS.split(), "Lorem ipsum", "terms of use", "privacy policy", "use cookies", "[citation needed]"]
SPACES = "\r\n|\r|\t|\u00a0|\u2028|\x85|\x0b|\x1c| \n |\u3000|  |\n|\n\n|\n\n\n"
GAPS = [" "] * 6 + SPACES.split("|")
pieces = st.sampled_from(PARTS)
loose = st.lists(st.tuples(pieces, st.sampled_from(GAPS)), max_size=40).map(
    lambda parts: "".join(part + gap for part, gap in parts)
)
lines = st.lists(pieces, max_size=5).map(" ".join)
repeated = st.tuples(st.lists(lines, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=14)).flatmap(
    lambda drawn: st.lists(st.sampled_from(["\n", "\n", "\n\n", "\r\n", " "]), min_size=14, max_size=14).map(
        lambda gaps: "".join(drawn[0][i % len(drawn[0])] + gap for i, gap in zip(drawn[1], gaps, strict=False))
    )
)
few_words = st.lists(st.sampled_from(["a", "aa", "b", "ab", "the", "."]), max_size=60).map(" ".join)
texts = st.one_of(loose, repeated, few_words, st.text(max_size=80))


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")  # datatrove's, of no words
@pytest.mark.parametrize("name", CONFIGS)
@examples(50)
@given(batch=st.lists(texts, min_size=1, max_size=4))
def test_generated_texts_are_judged_as_by_datatrove(name: str, batch: list[str]) -> None:
    fast, slow = pair(name)
    assert measured(fast, batch) == [expected(slow, text) for text in batch]


def mutated(text: str, rng: random.Random) -> str:
    """A page with something that filters look for."""
    parts = text.split("\n")
    kind = rng.randrange(12)
    if kind == 0:
        return text + ("\n" + parts[-1]) * rng.randrange(1, 6)
    if kind == 1:
        return text.replace(". ", " {x}. ", 1)
    if kind == 2:
        return "\n".join(f"{rng.choice(['- ', '• ', '* '])}{line}" for line in text.replace(". ", ".\n").split("\n"))
    if kind == 3:
        return text.replace(". ", rng.choice(["...\n", "…\n", "... "]))
    if kind == 4:
        return text.replace(" ", " # ", rng.randrange(len(text)))
    if kind == 5:
        return text.replace(".", f".[{rng.randrange(99)}]")
    if kind == 6:
        return text.replace(". ", rng.choice([". \n", ".\r\n", ".\u2028", ".\n\n", ".  "]))
    if kind == 7:
        return text.replace(
            ". ", f". {rng.choice(['Enable JavaScript', 'our Privacy Policy', 'We use cookies'])} here.\n", 2
        )
    if kind == 8:
        return f"{text}\n\n{text}"
    if kind == 9:
        found = text.split(" ")
        at = rng.randrange(len(found))
        return " ".join([*found[:at], *(found[at : at + rng.randrange(1, 12)] * rng.randrange(2, 30)), *found[at:]])
    if kind == 10:
        return text.translate({ord("e"): "é", ord("a"): "а"})
    return "".join(character for character in text if rng.random() > 0.02)


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="real pages were not judged: MedQuAD is not beside this repository")
@pytest.mark.parametrize(("a_source", "least"), [(22, 380), pytest.param(45, 700, marks=pytest.mark.full)])
def test_pages_of_medquad_are_judged_as_by_datatrove(a_source: int, least: int) -> None:
    rng = random.Random(5)
    pages: list[str] = []
    for path in sorted(MEDQUAD.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as rows:
            found = [json.loads(row) for row in itertools.islice(rows, 400)]
        pages += [
            f"{row['question']}\n\n{row['answer']}"[:4000] for row in rng.sample(found, min(len(found), a_source))
        ]
    batch = [*pages, *(mutated(page, rng) for page in pages)]
    fast, slow = pair("defaults")
    verdicts = measured(fast, batch)
    assert verdicts == [expected(slow, text) for text in batch]
    rules = {verdict.rule for verdict in verdicts}
    assert len(batch) > least and len(rules) >= 12, rules
    assert any(verdict.text != text and not verdict.rule for verdict, text in zip(verdicts, batch, strict=True))


@pytest.mark.parametrize("name", ["defaults", "every line", "web after C4"])
@given(batch=st.lists(texts, min_size=2, max_size=6))
@examples(40)
def test_a_verdict_does_not_depend_on_the_batch(name: str, batch: list[str]) -> None:
    fast, _ = pair(name)
    alone = [measured(fast, [text])[0] for text in batch]
    assert measured(Filters(CONFIGS[name], NoLanguage()), batch) == alone == measured(fast, batch)


PROSE = "The fever of the patient is high, and doctors have to act with care. "


@pytest.mark.parametrize(
    ("text", "rule", "value", "threshold"),
    [
        (" \n\u3000", "empty", 0.0, 1.0),
        ("One two three, four.", "quality_short", 4.0, 20.0),
        ("I am a b c d e f " * 4, "quality_short_words", 9 / 8, 3.0),
        ("Pneumonoultramicroscopic silicovolcanoconiosis " * 12, "quality_long_words", (24 + 21) / 2, 10.0),
        (PROSE * 2 + "# " * 5, "quality_hashes", 5 / 37, 0.1),
        ("\n".join(f"- {PROSE}" for _ in range(9)), "quality_bullets", 1.0, 0.9),
        (f"{PROSE}...\n" * 3 + PROSE * 3, "quality_line_ellipses", 0.75, 0.3),
        (PROSE + "111 222 333 444 555 666 " * 2, "quality_letters", 14 / 28, 0.6),
        ("Fever makes doctors act " * 7, "quality_stop_words", 0.0, 1.0),
        (f"{PROSE}\n" * 6, "repetition_lines", 5 / 7, 0.3),
        (f"{PROSE}\n\n" * 6, "repetition_paragraphs", 4 / 6, 0.3),
        (f"{sentence(1)[:298]}. " + "buy the pills today " * 30, "repetition_top_ngram", 30 * 13 / 900, 0.25),
        (f"Lorem ipsum of the page. {sentence(1)}", "c4_lorem_ipsum", 1.0, 0.0),
        (f"{PROSE}{PROSE}JavaScript", "c4_too_few_sentences", 0.0, 1.0),
    ],
)  # fmt: skip
def test_removals_have_the_value_and_the_threshold(text: str, rule: str, value: float, threshold: float) -> None:
    judged = Filters(FilterConfig(languages=[]), NoLanguage()).judge(Texts.of([sentence(9), text]))
    assert list(judged.removals) == [1]
    removal = judged.removals[1]
    assert (removal.rule, removal.threshold) == (rule, threshold)
    assert removal.value == pytest.approx(value, abs=1e-4)
    assert judged.texts[1] == text and not judged.rewritten.any()


def test_length_counts_characters() -> None:
    config = only(length=LengthConfig(minimum_characters=3, maximum_characters=5))
    judged = Filters(config, NoLanguage()).judge(Texts.of(["éé", "ééé", "ééééé", "éééééé", " "]))
    found = {row: (removal.rule, removal.value) for row, removal in judged.removals.items()}
    assert found == {0: ("length_short", 2), 3: ("length_long", 6), 4: ("empty", 0)}


def test_short_texts_are_not_judged_for_repetition_if_the_config_says_so() -> None:
    text = "Fever and pain.\n" * 4
    for minimum, rules in ((16, ["repetition_lines"]), (17, [])):
        config = only(repetition=GopherRepetitionConfig(minimum_words=minimum))
        judged = Filters(config, NoLanguage()).judge(Texts.of([text]))
        assert [removal.rule for removal in judged.removals.values()] == rules


def test_edits_of_texts_that_stay_are_counted() -> None:
    text = "Fever is high [1].\n\nEnable JavaScript.\nWe use cookies here.\n"
    text += f"{'x' * 13} yes.\nIt stays [2][edit] so.\nfine\n"
    config = only(c4=C4Config(terminal_punctuation=True, minimum_words_per_line=1, maximum_word_length=12))
    judged = Filters(config, NoLanguage()).judge(Texts.of([text, f"{text} Lorem ipsum is so.", "It stays."]))
    assert judged.texts[0] == "Fever is high .\nIt stays  so."
    assert judged.rewritten.tolist() == [True, False, False] and list(judged.removals) == [1]
    assert judged.edits == {
        "c4_lines": 4, "c4_lines_javascript": 1, "c4_lines_policy": 1, "c4_lines_long_word": 1, "c4_lines_no_end": 1,
        "c4_citations": 3, "c4_blank_lines": 1,
    }  # fmt: skip


def test_languages_are_judged_first_and_told_for_all_that_is_not_blank() -> None:
    spanish = "El paciente presenta fiebre y dolor de cabeza desde hace tres días, y debe tomar un antibiótico."
    judged = Filters(FilterConfig()).judge(Texts.of([sentence(1), spanish, "", sentence(2)]))
    assert judged.languages == ["en", "es", "", "en"] and judged.scores[2] == 0
    assert judged.removals[1].rule == "language" and judged.removals[1].detail == "es"
    assert judged.removals[1].value < judged.removals[1].threshold == 0.3
    assert judged.removals[2].rule == "empty" and len(judged.removals) == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (sentence(5), None),
        ("Too short a text to be of any use.", "quality_short"),
        ("The same line is repeated over and over again for nothing.\n" * 20, "repetition_lines"),
        (" ".join(["The 1234 patients of 3456 have 56 % 7890 ( 9012 ) [ 1122 ] 2233 % 44556"] * 6), "quality_letters"),
        (f"{sentence(5)} " + "buy the cheap pills here today and save " * 25, "repetition_top_ngram"),
        (f"Lorem ipsum is the text of this page. {sentence(5)}", "c4_lorem_ipsum"),
    ],
)
def test_the_filters_of_a_recipe_that_names_none(text: str, rule: str | None) -> None:
    judged = Filters(FilterConfig()).judge(Texts.of([text]))
    assert [removal.rule for removal in judged.removals.values()] == ([rule] if rule else [])
    assert judged.languages == ["en"] and judged.scores[0] > 0.3


def test_filters_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert not Filters(FilterConfig()).judge(Texts.of([sentence(1)])).removals


def test_hostile_texts_are_judged() -> None:
    hostile = ["\0" * 5000, "x" * 300_000, "a,b;" * 100_000, "[" * 5000, "\n" * 10_000, "\u2028" * 9000, "[1" * 9000,
               " ".join(f"q{i}" for i in range(40_000)), "é\u0301" * 20_000, "- " * 9000, "\r\n" * 9000 + "x", ")" * 999]  # fmt: skip # noqa: E501
    for config in (FilterConfig(languages=[]), datatrove_defaults(), CONFIGS["web after C4"], CONFIGS["every line"]):
        filters = Filters(config, NoLanguage())
        found = measured(filters, hostile)
        assert [verdict.rule for verdict in found if verdict.rule == "empty"] == ["empty"] * 2
        assert found == [measured(filters, [text])[0] for text in hostile]


def test_nothing_is_judged_to_nothing() -> None:
    for name in CONFIGS:
        judged = pair(name)[0].judge(Texts.of([]))
        assert len(judged.texts) == 0 and not judged.removals and judged.languages == []


def test_the_defaults_are_datatroves() -> None:
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter

    plain = [GopherQualityFilter(), GopherRepetitionFilter(), C4QualityFilter()]
    ours = datatrove_filters(datatrove_defaults())
    ignored = {"stats", "stop_words", "paragraph_exp", "_line_splitter"}
    for right, made in zip(plain, ours, strict=True):
        assert {k: v for k, v in vars(right).items() if k not in ignored} == {
            k: v for k, v in vars(made).items() if k not in ignored
        }
