"""Assembles clean documents: monographs, question pages, notes and forum posts.

Each is about one focus entity and a few others. Every document draws its own forms, facts, companions and
order, and never the same form twice, so that any two documents on one entity share facts but hardly a run of
five words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from stages.sample import phrases
from stages.sample.asks import BACKWARD, CASES, FORWARD, OPENERS
from stages.sample.forms import STATEMENTS, Form, fill, sentence
from stages.sample.tables import Entity, all_entities, entities

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


LONG_NAME = 14
"""Characters from which an entity's name would dominate a short document if every sentence repeated it."""

REFERENCES = {
    "drugs": ("this medicine", "the drug", "this agent"),
    "diseases": ("the disorder", "this condition", "the disease"),
    "organisms": ("the organism", "this pathogen", "this germ"),
}
"""What a sentence may call the entity of the sentence before."""


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

    def record(self) -> dict[str, str]:
        """The JSON object that stands in the file."""
        return {
            "id": self.id,
            "text": self.text,
            "url": f"synthetic://{self.source}/{self.number}",
            "title": self.title,
            "license": LICENSES[self.source],
            "group": self.group,
            "retrieved_at": self.retrieved_at,
        }


class Author:
    """Writes documents from one random generator; the same generator state gives the same documents."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._draw = rng.random
        self._focus: dict[str, list[Entity]] = {}
        self._used: set[tuple[int, int]] = set()
        self._last = ""
        self._referred = False

    def write(self, source: str) -> Document:
        """A new clean document of ``source``; focus entities come in shuffled rounds, all equally often."""
        queue = self._focus.setdefault(source, [])
        if not queue:
            queue.extend(all_entities())
            self._rng.shuffle(queue)
        focus = queue.pop()
        self._used.clear()
        self._last = ""
        text, title = {
            "synthetic_monographs": self._monograph,
            "synthetic_questions": self._questions,
            "synthetic_notes": self._note,
            "synthetic_forum": self._post,
        }[source](focus)
        return Document(source, text, title, focus.name)

    def line(self) -> str:
        """One sentence that states a random fact, for documents that are made elsewhere."""
        pool = all_entities()
        entity = pool[self._below(len(pool))]
        self._used.clear()
        self._last = ""
        return sentence(self._state(entity, *entity.facts[self._below(len(entity.facts))]))

    # Words

    def _below(self, n: int) -> int:
        return int(self._draw() * n)

    def _pick(self, forms: tuple[Form, ...]) -> Form:
        """A form that this document has not used yet, as long as there is one."""
        key, start = id(forms), self._below(len(forms))
        for step in range(len(forms)):
            index = (start + step) % len(forms)
            if (key, index) not in self._used:
                self._used.add((key, index))
                return forms[index]
        return forms[start]

    def _spent(self, forms: tuple[Form, ...]) -> bool:
        return all((id(forms), index) in self._used for index in range(len(forms)))

    def _plain(self, forms: tuple[Form, ...], subject: str = "") -> str:
        return fill(self._pick(forms), self._draw, subject)

    def _subject(self, entity: Entity) -> str:
        """The entity's name, or a reference in every second of successive sentences about one with a long name."""
        if self._last == entity.name and len(entity.name) >= LONG_NAME and not self._referred:
            self._referred = True
            words = REFERENCES[entity.table]
            return words[self._below(len(words))]
        self._last, self._referred = entity.name, False
        return entity.name

    def _state(self, entity: Entity, relation: str, value: str) -> str:
        return fill(self._pick(STATEMENTS[relation]), self._draw, self._subject(entity), value)

    def _facts(self, entity: Entity, most: int) -> list[tuple[str, str]]:
        """Up to ``most`` facts of the entity in random order."""
        return self._rng.sample(entity.facts, min(most, len(entity.facts)))

    def _stated(self, entity: Entity, most: int, attributions: tuple[Form, ...], rate: float) -> Iterator[str]:
        """Statements as whole sentences, some of them attributed to somebody."""
        for relation, value in self._facts(entity, most):
            clause = self._state(entity, relation, value)
            if self._draw() < rate and not self._spent(attributions):
                clause = f"{self._plain(attributions)} {clause}"
            yield sentence(clause)

    def _companion(self, focus: Entity, seen: set[str]) -> Entity:
        """Another entity, mostly of the same table, that the document has not named yet."""
        pool = entities(focus.table) if self._draw() < 0.75 else all_entities()
        while True:
            other = pool[self._below(len(pool))]
            if other.name not in seen:
                seen.add(other.name)
                return other

    def _contrast(self, focus: Entity, seen: set[str]) -> str:
        """One sentence with a statement about each of two entities."""
        one, two = self._companion(focus, seen), self._companion(focus, seen)
        first = self._state(one, *one.facts[self._below(len(one.facts))])
        second = self._state(two, *two.facts[self._below(len(two.facts))])
        return sentence(f"{first}, {self._plain(phrases.LINKS)} {second}")

    def _remarks(self, most: int, forms: tuple[Form, ...] = phrases.REMARKS) -> Iterator[str]:
        for _ in range(self._below(most + 1)):
            if not self._spent(forms):
                yield sentence(self._plain(forms))

    def _length(self) -> int:
        """The number of characters to aim for: mostly short, a few long."""
        return 620 + int(1750 * self._draw() ** 1.6)

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

    def _pair(self, entity: Entity, fact_asked: tuple[str, str]) -> str:
        relation, value = fact_asked
        backward = self._draw() < 0.25 and relation in BACKWARD
        bank = (BACKWARD if backward else FORWARD)[relation]
        question = fill(self._pick(bank), self._draw, entity.name, value)
        if self._draw() < 0.5 and not self._spent(OPENERS):
            question = f"{self._plain(OPENERS)} {question}"
        self._last, self._referred = entity.name, False
        clause = self._state(entity, relation, value)
        if self._draw() < 0.75:
            # Joined without a mark: short sentences would leave too many marks among the words for common
            # filters.
            others = [fact for fact in entity.facts if fact != fact_asked]
            clause = f"{clause} and {self._state(entity, *others[self._below(len(others))])}"
        if self._draw() < 0.35 and not self._spent(phrases.ATTRIBUTIONS):
            clause = f"{self._plain(phrases.ATTRIBUTIONS)} {clause}"
        answer = [f"{entity.name if backward else value}.", sentence(clause)]
        if self._draw() < 0.5:
            answer += self._remarks(1)
        return f"Question: {sentence(question, '?')}\nAnswer: {' '.join(answer)}"

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
