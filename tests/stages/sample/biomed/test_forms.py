"""The form language, and the tables that the forms are filled from."""

import random
import re

import pytest

from stages.sample import forms
from stages.sample.biomed import asks, phrases
from stages.sample.biomed.questions import CLAIMS, REVERSED_STEMS, STEMS
from stages.sample.forms import article, compile_form, definite, fill, plural, sentence
from stages.sample.tables import TABLES, all_entities, all_facts, entities


def test_a_form_is_filled_by_the_draws():
    form = compile_form("<S> [is|was] <aV> and [one|two|three] <Vs>")
    assert fill(form, lambda: 0.0, "warfarin", "ACE inhibitor") == "warfarin is an ACE inhibitor and one ACE inhibitors"
    assert fill(form, lambda: 0.99, "warfarin", "statin") == "warfarin was a statin and three statins"


def test_numbers_are_drawn_one_by_one():
    draws = iter([0.0, 0.5])
    assert fill(compile_form("from <N> to <N>"), lambda: next(draws)) == "from 2 to 49"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("opioid agonist", "an opioid agonist"),
        ("uricosuric", "a uricosuric"),
        ("SGLT2 inhibitor", "an SGLT2 inhibitor"),
        ("X-linked recessive", "an X-linked recessive"),
        ("mitochondrial", "a mitochondrial"),
        ("5-HT3 antagonist", "a 5-HT3 antagonist"),
    ],
)
def test_articles(noun, expected):
    assert article(noun) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("ash-leaf spots", "ash-leaf spots are found"),
        ("attacks of abdominal pain", "attacks of abdominal pain are found"),
        ("high-arched feet", "high-arched feet are found"),
        ("bleeding into joints", "bleeding into joints is found"),
        ("myasthenia gravis", "myasthenia gravis is found"),
        ("type 2 diabetes", "type 2 diabetes is found"),
    ],
)
def test_verbs_agree_with_the_attribute(noun, expected):
    assert fill(compile_form("<V> is found"), lambda: 0.0, "x", noun) == expected


def test_verbs_of_the_entity_stay():
    form = compile_form("the sign of <S> is <V>, and <V> that begins early suggests it")
    text = fill(form, lambda: 0.0, "tuberous sclerosis", "ash-leaf spots")
    assert text == "the sign of tuberous sclerosis is ash-leaf spots, and ash-leaf spots that begin early suggests it"


def test_plurals_and_definites():
    assert plural("CD20 antibody") == "CD20 antibodies"
    assert plural("obligate intracellular bacterium") == "obligate intracellular bacteria"
    assert plural("gram-negative coccus") == "gram-negative cocci"
    assert plural("dimorphic fungus") == "dimorphic fungi"
    assert definite("GABA-A receptor") == "the GABA-A receptor"
    assert definite("xanthine oxidase") == "xanthine oxidase"
    assert sentence("furosemide works") == "Furosemide works."


def test_every_relation_has_enough_forms_everywhere():
    relations = {relation for _, relation, _ in all_facts()}
    assert (
        forms.STATEMENTS.keys()
        == asks.FORWARD.keys()
        == asks.CASES.keys()
        == STEMS.keys()
        == CLAIMS.keys()
        == relations
    )
    assert asks.BACKWARD.keys() == REVERSED_STEMS.keys() == relations - {"inheritance"}
    assert all(len(found) >= 8 for found in forms.STATEMENTS.values())
    assert all(len(found) >= 8 for found in asks.FORWARD.values())


def test_every_statement_names_the_entity_and_the_attribute_and_leaves_no_slot():
    rng = random.Random(0)
    for entity, relation, value in all_facts():
        for form in (*forms.STATEMENTS[relation], *asks.CASES[relation]):
            text = fill(form, rng.random, entity.name, value).replace("<P>", "the patient")
            assert entity.name in text
            assert value in text or plural(value) in text
            assert not re.search(r"[<>\[\]|]|  ", text), text
    for form in (*phrases.REMARKS, *phrases.ATTRIBUTIONS, *phrases.CLOSINGS, *phrases.VITALS, *phrases.LEAKS):
        assert not re.search(r"[<>\[\]|]|  ", fill(form, rng.random, "x"))


def test_tables_are_large_and_consistent():
    sizes = {table: len(entities(table)) for table in TABLES}
    assert sizes["drugs"] >= 90 and sizes["diseases"] >= 60 and sizes["organisms"] >= 35
    assert len({entity.name for entity in all_entities()}) == sum(sizes.values())
    for entity in all_entities():
        values = [value for _, value in entity.facts]
        assert len(values) == len(set(values)) == {"drugs": 4, "diseases": 5, "organisms": 3}[entity.table]
        assert not entity.also & set(values), entity.name
        assert all(text == text.strip() for text in (entity.name, *values, *entity.also))
