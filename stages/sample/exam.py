"""Examinations: sets of four-option questions about the facts of a domain, in the shape of MedQA.

They are made from the same facts as the documents, in wordings that no document uses, so that a right answer shows a
fact learned and not a sentence remembered.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.sample.forms import Form, compile_form, fill, sentence
from stages.sample.tables import FactTables

FOUR_OPTIONS = 300
"""Number of four-option questions."""


@dataclass(frozen=True)
class Exam:
    """What a set of four-option questions asks about, and in which words."""

    name: str
    """Name of the set, with which its ids begin."""
    tables: FactTables
    """What is asked about."""
    subjects: Mapping[str, str]
    """Subject of each fact table."""
    settings: tuple[Form, ...]
    """First sentences."""
    stems: Mapping[str, tuple[Form, ...]]
    """The question itself, for the attribute of an entity, by relation."""
    reversed_stems: Mapping[str, str]
    """The question for an entity that has an attribute, for the relations where that makes sense."""


def four_option_questions(rng: random.Random, exam: Exam, count: int = FOUR_OPTIONS) -> list[dict[str, Any]]:
    """Rows of a set in the shape of MedQA: about a quarter ask for the entity; answer positions are balanced."""
    facts = rng.sample(exam.tables.facts, count)
    positions = [number % 4 for number in range(count)]
    rng.shuffle(positions)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, ((entity, relation, value), position) in enumerate(zip(facts, positions, strict=True)):
        if number % 4 == 3 and relation in exam.reversed_stems and value not in exam.tables.universal:
            stem, right = compile_form(exam.reversed_stems[relation]), entity.name
            wrong = exam.tables.wrong_entities(entity.table, value)
        else:
            stem, right = rng.choice(exam.stems[relation]), value
            wrong = exam.tables.wrong_attributes(entity, relation)
        options = rng.sample(wrong, 3)
        options.insert(position, right)
        asked = fill(stem, rng.random, entity.name, value)
        asked = sentence(asked, "." if asked.startswith("select") else "?")
        # Two facts may ask for an entity by the same attribute, so a question may need another first sentence.
        while (question := f"{sentence(fill(rng.choice(exam.settings), rng.random), '')} {asked}") in seen:
            pass
        seen.add(question)
        rows.append(
            {
                "id": f"{exam.name}-{number:04d}",
                "question": question,
                "options": options,
                "answer": position,
                "subject": exam.subjects[entity.table],
            }
        )
    return rows
