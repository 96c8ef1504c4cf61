"""The biomedical question sets: four options in the shape of MedQA (see ``exam``), and yes, no or maybe over an abstract
in the shape of PubMedQA.
"""

# ruff: noqa: E501 (one form a line)
from __future__ import annotations

import random
from typing import Any

from stages.sample.biomed.tables import SUBJECTS, TABLES
from stages.sample.exam import Exam
from stages.sample.forms import compile_form, compile_forms, fill, sentence

ABSTRACTS = 150
"""Number of yes, no or maybe questions."""

LABELS = ("yes", "no", "maybe")
LABEL_SHARES = (0.55, 0.35, 0.10)


SETTINGS = compile_forms("""
during an oral [board|licensing] examination, a candidate is handed a card and has [half a|one] minute to reply.
an attending [physician|consultant] stops at bed <N> and puts a single point to the youngest colleague present.
a [third|fourth]-year medical student preparing flash cards wants to verify one entry before tomorrow's test.
two interns disagree over lunch, and a senior colleague with <N> years of service is asked to settle it.
a quality officer compares <N> chart entries with the curriculum and has to fill in the one blank field.
while covering a night shift, a junior physician looks up one item prior to the morning conference.
an online self-assessment module displays item <N> and accepts only one correct response from the examinee.
a visiting professor opens grand rounds by challenging the audience with the following item.
a simulated [encounter|interview] ends, and the standardized examiner poses one closing item to the trainee.
the residency program director drafts item <N> of the in-training examination and needs its key.""")
"""The first sentence of a four-option question."""

STEMS = {
    "class": compile_forms("""
<S> falls into which drug class
select the drug class that correctly describes <S>
of the drug classes shown, which one includes <S>"""),
    "indication": compile_forms("""
<S> would most appropriately be prescribed to someone with which condition
select the condition that constitutes an indication for <S>
of the conditions shown, which one calls for <S>"""),
    "adverse_effect": compile_forms("""
<S> therapy is most notorious for which adverse effect
select the adverse effect that characterizes <S>
of the adverse effects shown, which one is attributable to <S>"""),
    "target": compile_forms("""
<S> produces its response via which molecular target
select the molecular target engaged by <S>
of the targets shown, which one is hit by <S>"""),
    "gene": compile_forms("""
<S> results from a defect of which gene
select the gene whose defect underlies <S>
of the genes shown, which one harbors the defect in <S>"""),
    "inheritance": compile_forms("""
<S> is handed down according to which inheritance pattern
select the inheritance pattern that applies to <S>
of the inheritance patterns shown, which one is seen with <S>"""),
    "sign": compile_forms("""
<S> would be most strongly suggested by which sign
select the sign most characteristic of <S>
of the signs shown, which one betrays <S>"""),
    "test": compile_forms("""
<S> is best investigated by means of which test
select the test that would establish <S>
of the tests shown, which one should be obtained for <S>"""),
    "treatment": compile_forms("""
<S> is best managed by means of which treatment
select the treatment most appropriate in <S>
of the treatments shown, which one should be offered in <S>"""),
    "kind": compile_forms("""
<S> represents which type of organism
select the type of organism that correctly describes <S>
of the types of organism shown, which one matches <S>"""),
    "disease": compile_forms("""
<S> is the etiologic agent of which disease
select the disease that results from <S>
of the diseases shown, which one is produced by <S>"""),
    "transmission": compile_forms("""
<S> most often reaches its host by which route of transmission
select the exposure that transmits <S>
of the exposures shown, which one conveys <S>"""),
}
"""The question itself, for the attribute of an entity."""

REVERSED_STEMS = {
    "class": "which one of these drugs represents <aV>",
    "indication": "which one of these drugs would be an appropriate prescription against <V>",
    "adverse_effect": "which one of these drugs is the most probable culprit in a patient who develops <V>",
    "target": "which one of these drugs exerts its influence via <tV>",
    "gene": "a defect of <V> would produce which one of these disorders",
    "sign": "which one of these disorders is betrayed by <V>",
    "test": "obtaining <V> would be most informative in which one of these disorders",
    "treatment": "offering <V> would be most appropriate in which one of these disorders",
    "kind": "which one of these organisms represents <aV>",
    "disease": "which one of these organisms is the etiologic agent of <V>",
    "transmission": "which one of these organisms reaches its host via <V>",
}
"""The question for an entity that has an attribute."""

CLAIMS = {
    "class": "should <S> be filed with the <Vs> when a formulary is revised by <N> independent reviewers",
    "indication": "is <S> appropriate therapy against <V> in a retrospective audit of <N> outpatient prescriptions",
    "adverse_effect": "is exposure to <S> associated with <V> according to <N> anonymized pharmacovigilance summaries",
    "target": "does <S> exert its influence via <tV> in a panel of <N> independent binding experiments",
    "gene": "do defects of <V> account for <S> across a registry that enrolled <N> unrelated kindreds",
    "inheritance": "does segregation analysis of <N> unrelated kindreds classify <S> among <V> traits",
    "sign": "can <V> raise the probability of <S> among <N> consecutive referrals to a tertiary center",
    "test": "can <V> improve detection of <S> among <N> consecutive referrals to a tertiary center",
    "treatment": "can <V> improve outcomes for <S> in a registry that enrolled <N> consecutive participants",
    "kind": "do <N> reference isolates support placing <S> with the <Vs> in a revised laboratory catalog",
    "disease": "is <S> an etiologic agent of <V> according to <N> laboratory-verified outbreak files",
    "transmission": "can <V> account for human acquisition of <S> in <N> laboratory-verified outbreak files",
}
"""Questions of the second set, all answerable by yes or no."""

_AIMS = compile_forms("""
OBJECTIVE: to verify an entry of the teaching tables concerning <S> within an invented data set.
BACKGROUND: tables used for instruction are seldom audited, and the entry on <S> was chosen at random.
PURPOSE: to examine how consistently <S> is characterized by independent raters of invented material.""")
_METHODS = compile_forms("""
METHODS: <N> invented files were rated by [two|three|four] blinded assessors, and disagreements were resolved by discussion.
METHODS: [two|three|four] blinded assessors extracted the item from <N> invented files using a prespecified form.
METHODS: a random sample of <N> invented files was abstracted twice, with [good|excellent] agreement.""")
_SUPPORTED = compile_forms("""
RESULTS: the pairing of <S> with <V> was upheld in [nearly all|the great majority of] files, and no rival entry came close.
RESULTS: assessors matched <S> to <V> consistently, and sensitivity analyses left this finding unchanged.""")
_REFUTED = compile_forms("""
RESULTS: assessors did not match <S> to <W>; the entry that they upheld in [nearly all|most] files was <V>.
RESULTS: no excess of <W> was observed for <S>, whereas <V> was upheld [throughout|in the great majority of files].""")
_UNDECIDED = compile_forms("""
RESULTS: estimates linking <S> to <V> in this subgroup were imprecise, pointed both ways, and changed with the analysis chosen.
RESULTS: in this subgroup the files on <S> and <V> were too few, and the two analyses [contradicted each other|disagreed].""")
_SUBGROUPS = (
    "specifically in left-handed participants",
    "more often during winter months",
    "differently in rural districts",
    "to the same degree in twins",
)

MEDQA = Exam("medqa_synthetic", TABLES, SUBJECTS, SETTINGS, STEMS, REVERSED_STEMS)
"""The medical examination."""


def abstract_questions(rng: random.Random, count: int = ABSTRACTS) -> list[dict[str, Any]]:
    """Rows of the PubMedQA-shaped set; "maybe" asks about a subgroup on which the abstract is undecided."""
    facts = rng.sample(TABLES.facts, count)
    yes, no = (round(share * count) for share in LABEL_SHARES[:2])
    answers = [0] * yes + [1] * no + [2] * (count - yes - no)
    rng.shuffle(answers)
    rows: list[dict[str, Any]] = []
    for number, ((entity, relation, value), answer) in enumerate(zip(facts, answers, strict=True)):
        claimed = rng.choice(TABLES.wrong_attributes(entity, relation)) if answer == 1 else value
        question = fill(compile_form(CLAIMS[relation]), rng.random, entity.name, claimed)
        if answer == 2:
            question = f"{question}, and {rng.choice(_SUBGROUPS)}"
        results = rng.choice((_SUPPORTED, _REFUTED, _UNDECIDED)[answer])
        context = " ".join(
            fill(form, rng.random, entity.name, value).replace("<W>", claimed)
            for form in (rng.choice(_AIMS), rng.choice(_METHODS), results)
        )
        rows.append(
            {
                "id": f"pubmedqa_synthetic-{number:04d}",
                "question": sentence(question, "?"),
                "context": context,
                "options": list(LABELS),
                "answer": answer,
            }
        )
    return rows
