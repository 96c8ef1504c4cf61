"""Writes sentences from forms: what the authors of all kinds of documents share.

A document never uses the same form twice as long as there is another, so that any two documents on one entity share
facts but hardly a run of five words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stages.sample.forms import Form, compile_forms, fill, sentence
from stages.sample.tables import Entity, FactTables

LINKS = compile_forms("""
whereas
while
but
and by contrast
and in the same [list|chapter|lecture],
and [separately|similarly|in turn],
although [elsewhere|for comparison]""")
"""Between two statements about different entities."""

LONG_NAME = 14
"""Characters from which an entity's name would dominate a short document if every sentence repeated it."""


@dataclass(frozen=True)
class Domain:
    """What the documents of one sample are about, and the forms that they are written from."""

    tables: FactTables
    """Where entities come from."""
    statements: Mapping[str, tuple[Form, ...]]
    """Forms that state a fact, by relation."""
    references: Mapping[str, tuple[str, ...]]
    """By table, what a sentence may call the entity of the sentence before."""
    forward: Mapping[str, tuple[Form, ...]]
    """Forms that ask for the attribute of an entity, by relation."""
    backward: Mapping[str, tuple[Form, ...]]
    """Forms that ask for an entity with an attribute, for the relations where that makes sense."""
    openers: tuple[Form, ...]
    """Put before about half of the questions."""
    attributions: tuple[Form, ...]
    """Put before some statements."""
    remarks: tuple[Form, ...]
    """Sentences that are true of anything."""


class Prose:
    """Sentences from one random generator; the same generator state gives the same sentences."""

    def __init__(self, rng: random.Random, domain: Domain) -> None:
        self._rng = rng
        self._draw = rng.random
        self._domain = domain
        self._queues: dict[str, list[Entity]] = {}
        self._used: set[tuple[int, int]] = set()
        self._last = ""
        self._referred = False

    def line(self) -> str:
        """One sentence that states a random fact, for texts that another module assembles."""
        pool = self._domain.tables.entities
        entity = pool[self._randbelow(len(pool))]
        self._start_document()
        return sentence(self._statement(entity, *entity.facts[self._randbelow(len(entity.facts))]))

    def _start_document(self) -> None:
        """A new document: every form is unused again."""
        self._used.clear()
        self._last = ""

    def _focus(self, source: str) -> Entity:
        """What the next document of a source is about: entities come in shuffled rounds, all equally often."""
        queue = self._queues.setdefault(source, [])
        if not queue:
            queue.extend(self._domain.tables.entities)
            self._rng.shuffle(queue)
        return queue.pop()

    def _randbelow(self, n: int) -> int:
        return int(self._draw() * n)

    def _pick(self, forms: tuple[Form, ...]) -> Form:
        """A form that this document has not used yet, as long as there is one."""
        key, start = id(forms), self._randbelow(len(forms))
        for step in range(len(forms)):
            index = (start + step) % len(forms)
            if (key, index) not in self._used:
                self._used.add((key, index))
                return forms[index]
        return forms[start]

    def _all_used(self, forms: tuple[Form, ...]) -> bool:
        return all((id(forms), index) in self._used for index in range(len(forms)))

    def _phrase(self, forms: tuple[Form, ...], subject: str = "") -> str:
        return fill(self._pick(forms), self._draw, subject)

    def _subject(self, entity: Entity) -> str:
        """The entity's name, or a reference in every second of successive sentences about one with a long name."""
        if self._last == entity.name and len(entity.name) >= LONG_NAME and not self._referred:
            self._referred = True
            words = self._domain.references[entity.table]
            return words[self._randbelow(len(words))]
        self._last, self._referred = entity.name, False
        return entity.name

    def _statement(self, entity: Entity, relation: str, value: str) -> str:
        return fill(self._pick(self._domain.statements[relation]), self._draw, self._subject(entity), value)

    def _facts(self, entity: Entity, most: int) -> list[tuple[str, str]]:
        """Up to ``most`` facts of the entity in random order."""
        return self._rng.sample(entity.facts, min(most, len(entity.facts)))

    def _statements(self, entity: Entity, most: int, attributions: tuple[Form, ...], rate: float) -> Iterator[str]:
        """Statements as whole sentences, some of them attributed to somebody."""
        for relation, value in self._facts(entity, most):
            clause = self._statement(entity, relation, value)
            if self._draw() < rate and not self._all_used(attributions):
                clause = f"{self._phrase(attributions)} {clause}"
            yield sentence(clause)

    def _companion(self, focus: Entity, seen: set[str]) -> Entity:
        """Another entity, mostly of the same table, that the document has not named yet."""
        pool = self._domain.tables.rows(focus.table) if self._draw() < 0.75 else self._domain.tables.entities
        while True:
            other = pool[self._randbelow(len(pool))]
            if other.name not in seen:
                seen.add(other.name)
                return other

    def _contrast(self, focus: Entity, seen: set[str]) -> str:
        """One sentence with a statement about each of two entities."""
        one, two = self._companion(focus, seen), self._companion(focus, seen)
        first = self._statement(one, *one.facts[self._randbelow(len(one.facts))])
        second = self._statement(two, *two.facts[self._randbelow(len(two.facts))])
        return sentence(f"{first}, {self._phrase(LINKS)} {second}")

    def _remarks(self, most: int, forms: tuple[Form, ...] = ()) -> Iterator[str]:
        """Up to ``most`` sentences from ``forms``, or else from the domain's own remarks."""
        forms = forms or self._domain.remarks
        for _ in range(self._randbelow(most + 1)):
            if not self._all_used(forms):
                yield sentence(self._phrase(forms))

    def _target_length(self) -> int:
        """The number of characters to aim for: mostly short, a few long."""
        return 620 + int(1750 * self._draw() ** 1.6)

    def _question_and_answer(self, entity: Entity, fact_asked: tuple[str, str]) -> str:
        """A question and its answer: the attribute (or the entity), then a sentence that states it."""
        relation, value = fact_asked
        backward = self._draw() < 0.25 and relation in self._domain.backward
        bank = (self._domain.backward if backward else self._domain.forward)[relation]
        question = fill(self._pick(bank), self._draw, entity.name, value)
        if self._draw() < 0.5 and not self._all_used(self._domain.openers):
            question = f"{self._phrase(self._domain.openers)} {question}"
        self._last, self._referred = entity.name, False
        clause = self._statement(entity, relation, value)
        if self._draw() < 0.75:
            # Joined without a mark: with short sentences common filters would count too many marks among the words.
            others = [fact for fact in entity.facts if fact != fact_asked]
            clause = f"{clause} and {self._statement(entity, *others[self._randbelow(len(others))])}"
        if self._draw() < 0.35 and not self._all_used(self._domain.attributions):
            clause = f"{self._phrase(self._domain.attributions)} {clause}"
        answer = [f"{entity.name if backward else value}.", sentence(clause)]
        if self._draw() < 0.5:
            answer += self._remarks(1)
        return f"Question: {sentence(question, '?')}\nAnswer: {' '.join(answer)}"
