"""The form language."""

import pytest

from stages.sample.forms import article, compile_form, definite, fill, plural, sentence


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
