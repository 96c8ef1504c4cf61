"""The question set of the finance sample: four options, half about companies and half about countries, about.

Made from the same facts as the documents, in wordings that no document uses.
"""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

from stages.sample.exam import Exam
from stages.sample.finance.tables import TABLES
from stages.sample.forms import compile_forms

SETTINGS = compile_forms("""
at a certification exam for junior [portfolio managers|credit officers], candidate number <N> draws one card and must reply at once.
during an onboarding course, the instructor projects a single item and gives everybody [ten|twenty] seconds.
a compliance trainee compares <N> database fields with the register and has to complete the one that was left blank.
the quizmaster of an office tournament opens round <N> with an item that every team must settle unanimously.
an editor verifying a fact box before publication wants one entry confirmed by a colleague with <N> years of experience.
two apprentices disagree over lunch, and whoever is wrong has to fetch the coffee for <N> days.
an adaptive self-assessment displays item <N> and accepts exactly one correct response per attempt.
while rehearsing for a televised contest, the champion is challenged by her coach with the following item.
a recruiter closes an interview by testing the general knowledge of applicant number <N>.""")

STEMS = {
    "sector": compile_forms("""
<S> would be assigned to which industry
select the industry that correctly describes <S>
of the industries shown, which one includes <S>"""),
    "product": compile_forms("""
<S> would be approached in order to procure what
select the merchandise that correctly matches <S>
of the items shown, which one could be ordered from <S>"""),
    "headquarters": compile_forms("""
<S> would be visited in which municipality
select the municipality that hosts <S>
of the municipalities shown, which one hosts <S>"""),
    "chief_executive": compile_forms("""
<S> takes its instructions from which person
select the person in charge of <S>
of the persons shown, which one is in charge of <S>"""),
    "auditor": compile_forms("""
<S> has its annual figures certified by which accounting practice
select the accounting practice certifying <S>
of the accounting practices shown, which one certifies <S>"""),
    "capital": compile_forms("""
<S> would receive an ambassador in which metropolis
select the metropolis that administers <S>
of the metropolises shown, which one administers <S>"""),
    "currency": compile_forms("""
<S> requires a tourist to carry which monetary unit
select the monetary unit issued for <S>
of the monetary units shown, which one is valid throughout <S>"""),
    "language": compile_forms("""
<S> would call for an interpreter of which tongue
select the tongue predominant throughout <S>
of the tongues shown, which one predominates throughout <S>"""),
    "continent": compile_forms("""
<S> should be looked up under which world region
select the world region that contains <S>
of the world regions shown, which one contains <S>"""),
}
"""The question itself, for the attribute of an entity."""

REVERSED_STEMS = {
    "sector": "which one of these firms would be assigned to <V>",
    "product": "which one of these firms could deliver <V>",
    "headquarters": "which one of these firms would be visited in <V>",
    "chief_executive": "which one of these firms takes its instructions from <V>",
    "auditor": "which one of these firms has its annual figures certified by <V>",
    "capital": "which one of these states would receive an ambassador in <V>",
    "currency": "which one of these states requires a tourist to carry the <V>",
    "language": "which one of these states would call for an interpreter of <V>",
    "continent": "which one of these states is contained in <V>",
}
"""The question for an entity that has an attribute."""

SUBJECTS = {"companies": "companies", "countries": "geography"}
"""The examination subject that each table belongs to."""

EXAM = Exam("finance_synthetic", TABLES, SUBJECTS, SETTINGS, STEMS, REVERSED_STEMS)
"""The finance sample's own examination."""
