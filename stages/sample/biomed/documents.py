"""Writes clean biomedical documents: monographs, question pages, case notes and forum posts.

Each is about one focus entity and a few others. Every document draws its own forms, facts, companions and order, and
never the same form twice, so that any two documents on one entity share facts but hardly a run of five words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from stages.sample.biomed import audits, phrases
from stages.sample.biomed.forms import BACKWARD, CASES, FORWARD, OPENERS, STATEMENTS
from stages.sample.biomed.tables import TABLES
from stages.sample.document import Document
from stages.sample.forms import fill, sentence
from stages.sample.prose import LONG_NAME, Domain, Prose
from stages.sample.tables import Entity

LICENSES = {
    "synthetic_monographs": "CC-BY-4.0",
    "synthetic_questions": "CC0-1.0",
    "synthetic_notes": "CC-BY-SA-4.0",
    "synthetic_forum": "LicenseRef-proprietary",
}
"""The four sources and their licences; a recipe's policy denies the last."""

SHARES = {
    "synthetic_monographs": 0.34,
    "synthetic_questions": 0.34,
    "synthetic_notes": 0.22,
    "synthetic_forum": 0.10,
}
"""Each source's share of the text."""

DENIED = "synthetic_forum"
"""The proprietary source. Nothing is planted in it, since policy removes it before anything is measured."""

REFERENCES = {
    "drugs": ("this medicine", "the drug", "this agent"),
    "diseases": ("the disorder", "this condition", "the disease"),
    "organisms": ("the organism", "this pathogen", "this germ"),
}
"""What a sentence may call the entity of the sentence before it."""

AUDITED = 0.35
"""Share of the questions that come with an audit."""


BIOMED = Domain(
    tables=TABLES,
    statements=STATEMENTS,
    references=REFERENCES,
    forward=FORWARD,
    backward=BACKWARD,
    openers=OPENERS,
    attributions=phrases.ATTRIBUTIONS,
    remarks=phrases.REMARKS,
)
"""Drugs, diseases and organisms."""


class Author(Prose):
    """Writes documents from one random generator; the same generator state gives the same documents."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, BIOMED)

    def write(self, source: str) -> Document:
        """A new clean document of ``source``; focus entities come in shuffled rounds, all equally often."""
        focus = self._focus(source)
        self._start_document()
        text, title = {
            "synthetic_monographs": self._monograph,
            "synthetic_questions": self._questions,
            "synthetic_notes": self._note,
            "synthetic_forum": self._forum_post,
        }[source](focus)
        return Document(source, text, title, focus.name)

    # Documents

    def _monograph(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._target_length()
        opening = sentence(self._phrase(phrases.OPENINGS[focus.table], focus.name))
        first = [*self._statements(focus, 5, phrases.ATTRIBUTIONS, 0.2)]
        first.insert(self._randbelow(len(first) + 1), sentence(self._phrase(phrases.REMARKS)))
        paragraphs = [" ".join([opening, *first])]
        size = len(paragraphs[0])
        while size < goal:
            if len(paragraphs) == 2 or self._draw() < 0.2:
                body = [*self._statements(focus, 2, phrases.ATTRIBUTIONS, 0.3), *self._remarks(1)]
            else:
                other = self._companion(focus, seen)
                turns = phrases.TURNS[other.table]
                body = [] if self._all_used(turns) else [sentence(self._phrase(turns, other.name))]
                body += self._statements(other, 2 + self._randbelow(3), phrases.ATTRIBUTIONS, 0.2)
                if self._draw() < 0.4:
                    body.append(self._contrast(focus, seen))
                body += self._remarks(1)
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        paragraphs[-1] += " " + sentence(self._phrase(phrases.CLOSINGS, focus.name))
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic monograph"

    def _questions(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._target_length()
        pairs: list[str] = []
        size = 0
        subjects = [(focus, fact) for fact in self._facts(focus, 3 if len(focus.name) > LONG_NAME else 4)]
        while size < goal:
            if not subjects:
                other = self._companion(focus, seen)
                subjects = [(other, fact) for fact in self._facts(other, 2)]
            write = self._audit if self._draw() < AUDITED else self._question_and_answer
            pairs.append(write(*subjects.pop()))
            size += len(pairs[-1])
        return "\n\n".join(pairs), f"{focus.name}: synthetic questions and answers"

    def _audit(self, entity: Entity, fact: tuple[str, str]) -> str:
        """Findings on one attribute of the entity, a question that they decide, the answer and its reason."""
        relation, value = fact
        verdict = audits.VERDICTS[self._randbelow(len(audits.VERDICTS))]
        claimed = value
        if verdict is audits.NO:
            wrong = TABLES.wrong_attributes(entity, relation)
            claimed = wrong[self._randbelow(len(wrong))]
        self._last = ""  # the first sentence names the entity
        opening = sentence(self._phrase(audits.OPENINGS, self._subject(entity)))
        findings = fill(self._pick(verdict.findings), self._draw, self._subject(entity), value)
        label = audits.LABELS[self._randbelow(len(audits.LABELS))]
        bank = audits.QUESTIONS[relation] if self._draw() < 0.6 else audits.ANY_RELATION
        question = fill(self._pick(bank), self._draw, entity.name, claimed)
        if self._draw() < 0.4:
            question = f"{question} {self._phrase(audits.TAILS)}"
        self._last, self._referred = entity.name, False
        if verdict is audits.MAYBE:
            question = f"{question}, and {self._phrase(audits.SUBGROUPS)}"
            reason = fill(self._pick(audits.UNDECIDED), self._draw, self._subject(entity), value)
        else:
            reason = self._statement(entity, relation, value)
        return (
            f"{opening} {sentence(label + findings.replace('<W>', claimed))}\n\n"
            f"Question: {sentence(question, '?')}\nAnswer: {verdict.answer}. {sentence(reason)}"
        )

    def _note(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._target_length()
        job = phrases.OCCUPATIONS[self._randbelow(len(phrases.OCCUPATIONS))]
        age = 19 + self._randbelow(68)
        article = "an" if age in range(80, 90) else "a"
        who = f"{article} {age}-year-old {job}"

        def about(clause: str) -> str:
            name = "the patient" if self._draw() < 0.5 else f"the {job}"
            return sentence(clause.replace("<P>", name))

        def case_sentences(entity: Entity, most: int) -> Iterator[str]:
            for relation, value in self._facts(entity, most):
                yield about(fill(self._pick(CASES[relation]), self._draw, self._subject(entity), value))

        opening = sentence(self._phrase(phrases.NOTE_OPENINGS).replace("<P>", who))
        vitals = [sentence(self._phrase(phrases.VITALS)) for _ in range(1 + self._randbelow(2))]
        paragraphs = [" ".join([opening, *vitals, *case_sentences(focus, 4)])]
        size = len(paragraphs[0])
        while size < goal:
            if self._draw() < 0.35:
                body = [*self._statements(focus, 2, phrases.ATTRIBUTIONS, 0.3), *self._remarks(1)]
            else:
                other = self._companion(focus, seen)
                mixed = [*case_sentences(other, 2), *self._statements(other, 2, phrases.ATTRIBUTIONS, 0.2)]
                self._rng.shuffle(mixed)
                body = [*mixed, *self._remarks(1)]
                if self._draw() < 0.3:
                    body.append(self._contrast(focus, seen))
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        paragraphs[-1] += " " + about(self._phrase(phrases.NOTE_ENDINGS))
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic case note"

    def _forum_post(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._target_length()
        text = [sentence(self._phrase(phrases.FORUM_OPENINGS, focus.name))]
        text += self._statements(focus, 4, phrases.FORUM_ATTRIBUTIONS, 0.5)
        paragraphs, size = [" ".join(text)], sum(map(len, text))
        while size < goal:
            other = self._companion(focus, seen)
            body = [*self._statements(other, 3, phrases.FORUM_ATTRIBUTIONS, 0.4)]
            body += self._remarks(2, phrases.FORUM_REMARKS)
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic forum thread"
