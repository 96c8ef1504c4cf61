"""Assembles clean documents: monographs, question pages, notes and forum posts.

Each is about one focus entity and a few others. Every document draws its own forms, facts, companions and
order, and never the same form twice, so that any two documents on one entity share facts but hardly a run of
five words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from stages.sample.biomed import phrases
from stages.sample.biomed.asks import BACKWARD, CASES, FORWARD, OPENERS
from stages.sample.forms import STATEMENTS, fill, sentence
from stages.sample.prose import LONG_NAME, Domain, Prose
from stages.sample.tables import TABLES, Entity

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
"""Each source's part of the text."""

DENIED = "synthetic_forum"
"""The proprietary source. Nothing is planted in it, since policy removes it before anything is measured."""

REFERENCES = {
    "drugs": ("this medicine", "the drug", "this agent"),
    "diseases": ("the disorder", "this condition", "the disease"),
    "organisms": ("the organism", "this pathogen", "this germ"),
}
"""What a sentence may call the entity of the sentence before."""


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


@dataclass(eq=False)
class Document:
    """One record to be written. ``number`` is given when the source's records have their final order."""

    source: str
    text: str
    title: str
    group: str
    number: int = -1
    retrieved_at: str = field(default="")

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.source}-{self.number:06d}"

    def record(self, license: str) -> dict[str, str]:
        """The JSON object that stands in the file."""
        return {
            "id": self.id,
            "text": self.text,
            "url": f"synthetic://{self.source}/{self.number}",
            "title": self.title,
            "license": license,
            "group": self.group,
            "retrieved_at": self.retrieved_at,
        }


class Author(Prose):
    """Writes documents from one random generator; the same generator state gives the same documents."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, BIOMED)

    def write(self, source: str) -> Document:
        """A new clean document of ``source``; focus entities come in shuffled rounds, all equally often."""
        focus = self._focus(source, TABLES)
        self._begin()
        text, title = {
            "synthetic_monographs": self._monograph,
            "synthetic_questions": self._questions,
            "synthetic_notes": self._note,
            "synthetic_forum": self._post,
        }[source](focus)
        return Document(source, text, title, focus.name)

    # Documents

    def _monograph(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._length()
        opening = sentence(self._plain(phrases.OPENINGS[focus.table], focus.name))
        first = [*self._stated(focus, 5, phrases.ATTRIBUTIONS, 0.2)]
        first.insert(self._below(len(first) + 1), sentence(self._plain(phrases.REMARKS)))
        paragraphs = [" ".join([opening, *first])]
        size = len(paragraphs[0])
        while size < goal:
            if len(paragraphs) == 2 or self._draw() < 0.2:
                body = [*self._stated(focus, 2, phrases.ATTRIBUTIONS, 0.3), *self._remarks(1)]
            else:
                other = self._companion(focus, seen)
                turns = phrases.TURNS[other.table]
                body = [] if self._spent(turns) else [sentence(self._plain(turns, other.name))]
                body += self._stated(other, 2 + self._below(3), phrases.ATTRIBUTIONS, 0.2)
                if self._draw() < 0.4:
                    body.append(self._contrast(focus, seen))
                body += self._remarks(1)
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        paragraphs[-1] += " " + sentence(self._plain(phrases.CLOSINGS, focus.name))
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic monograph"

    def _questions(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._length()
        pairs: list[str] = []
        size = 0
        subjects = [(focus, fact) for fact in self._facts(focus, 3 if len(focus.name) > LONG_NAME else 4)]
        while size < goal:
            if not subjects:
                other = self._companion(focus, seen)
                subjects = [(other, fact) for fact in self._facts(other, 2)]
            pairs.append(self._pair(*subjects.pop()))
            size += len(pairs[-1])
        return "\n\n".join(pairs), f"{focus.name}: synthetic questions and answers"

    def _note(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._length()
        job = phrases.OCCUPATIONS[self._below(len(phrases.OCCUPATIONS))]
        age = 19 + self._below(68)
        article = "an" if age in range(80, 90) else "a"
        who = f"{article} {age}-year-old {job}"

        def about(clause: str) -> str:
            name = "the patient" if self._draw() < 0.5 else f"the {job}"
            return sentence(clause.replace("<P>", name))

        def told(entity: Entity, most: int) -> Iterator[str]:
            for relation, value in self._facts(entity, most):
                yield about(fill(self._pick(CASES[relation]), self._draw, self._subject(entity), value))

        opening = sentence(self._plain(phrases.NOTE_OPENINGS).replace("<P>", who))
        vitals = [sentence(self._plain(phrases.VITALS)) for _ in range(1 + self._below(2))]
        paragraphs = [" ".join([opening, *vitals, *told(focus, 4)])]
        size = len(paragraphs[0])
        while size < goal:
            if self._draw() < 0.35:
                body = [*self._stated(focus, 2, phrases.ATTRIBUTIONS, 0.3), *self._remarks(1)]
            else:
                other = self._companion(focus, seen)
                mixed = [*told(other, 2), *self._stated(other, 2, phrases.ATTRIBUTIONS, 0.2)]
                self._rng.shuffle(mixed)
                body = [*mixed, *self._remarks(1)]
                if self._draw() < 0.3:
                    body.append(self._contrast(focus, seen))
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        paragraphs[-1] += " " + about(self._plain(phrases.NOTE_ENDINGS))
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic case note"

    def _post(self, focus: Entity) -> tuple[str, str]:
        seen, goal = {focus.name}, self._length()
        text = [sentence(self._plain(phrases.FORUM_OPENINGS, focus.name))]
        text += self._stated(focus, 4, phrases.FORUM_ATTRIBUTIONS, 0.5)
        paragraphs, size = [" ".join(text)], sum(map(len, text))
        while size < goal:
            other = self._companion(focus, seen)
            body = [*self._stated(other, 3, phrases.FORUM_ATTRIBUTIONS, 0.4)]
            body += self._remarks(2, phrases.FORUM_REMARKS)
            paragraphs.append(" ".join(body))
            size += len(paragraphs[-1])
        return "\n\n".join(paragraphs), f"{focus.name}: a synthetic forum thread"
