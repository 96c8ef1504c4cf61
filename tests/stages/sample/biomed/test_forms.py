"""The biomedical forms and the tables that they are filled from."""

import random
import re

from stages.sample.biomed import forms, phrases
from stages.sample.biomed.questions import CLAIMS, REVERSED_STEMS, STEMS
from stages.sample.biomed.tables import TABLES
from stages.sample.forms import fill, plural


def test_every_relation_has_enough_forms_everywhere():
    relations = {relation for _, relation, _ in TABLES.facts}
    assert (
        forms.STATEMENTS.keys()
        == forms.FORWARD.keys()
        == forms.CASES.keys()
        == STEMS.keys()
        == CLAIMS.keys()
        == relations
    )
    assert forms.BACKWARD.keys() == REVERSED_STEMS.keys() == relations - {"inheritance"}
    assert all(len(found) >= 8 for found in forms.STATEMENTS.values())
    assert all(len(found) >= 8 for found in forms.FORWARD.values())


def test_every_statement_names_the_entity_and_the_attribute_and_leaves_no_slot():
    rng = random.Random(0)
    for entity, relation, value in TABLES.facts:
        for form in (*forms.STATEMENTS[relation], *forms.CASES[relation]):
            text = fill(form, rng.random, entity.name, value).replace("<P>", "the patient")
            assert entity.name in text
            assert value in text or plural(value) in text
            assert not re.search(r"[<>\[\]|]|  ", text), text
    for form in (*phrases.REMARKS, *phrases.ATTRIBUTIONS, *phrases.CLOSINGS, *phrases.VITALS, *phrases.LEAKS):
        assert not re.search(r"[<>\[\]|]|  ", fill(form, rng.random, "x"))


def test_tables_are_large_and_consistent():
    sizes = {table: len(TABLES.rows(table)) for table in TABLES.names}
    assert sizes["drugs"] >= 90 and sizes["diseases"] >= 60 and sizes["organisms"] >= 35
    assert len({entity.name for entity in TABLES.entities}) == sum(sizes.values())
    for entity in TABLES.entities:
        values = [value for _, value in entity.facts]
        assert len(values) == len(set(values)) == {"drugs": 4, "diseases": 5, "organisms": 3}[entity.table]
        assert not entity.also & set(values), entity.name
        assert all(text == text.strip() for text in (entity.name, *values, *entity.also))
