"""Reads the fact tables: entities, their relations, and what else is true of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLES = ("drugs", "diseases", "organisms")
"""The biomedical tables, in a fixed order, since the generator's choices depend on it."""

SUBJECTS = {"drugs": "pharmacology", "diseases": "genetics", "organisms": "microbiology"}
"""The examination subject that each table belongs to."""

UNIVERSAL = frozenset({"supportive care", "nausea", "diarrhea", "anaphylaxis", "liver injury"})
"""Attributes that can be argued for nearly anything of their type; they are never offered as a wrong option."""


@dataclass(frozen=True)
class Entity:
    """One row of a table: a drug, a disease or an organism."""

    name: str
    table: str
    facts: tuple[tuple[str, str], ...]
    """(relation, attribute) pairs, in the order of the table's columns; empty cells left out."""
    also: frozenset[str]

    def get(self, relation: str) -> str | None:
        """The attribute in ``relation``, or None where the table has no value."""
        return next((value for name, value in self.facts if name == relation), None)

    def is_true(self, attribute: str) -> bool:
        """Whether the tables hold ``attribute`` to be true of this entity, in whatever relation."""
        return attribute in self.also or any(value == attribute for _, value in self.facts)


@cache
def entities(table: str) -> tuple[Entity, ...]:
    """All rows of ``table`` in file order."""
    (path,) = Path(__file__).parent.glob(f"*/facts/{table}.tsv")
    text = path.read_text(encoding="utf-8")
    header, *rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    relations = header[1:-1]
    found = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"facts/{table}.tsv: {row[0]!r} has {len(row)} cells, the header has {len(header)}")
        facts = tuple((name, value) for name, value in zip(relations, row[1:-1], strict=True) if value)
        found.append(Entity(row[0], table, facts, frozenset(filter(None, row[-1].split(";")))))
    return tuple(found)


@cache
def all_entities(tables: tuple[str, ...] = TABLES) -> tuple[Entity, ...]:
    """All rows of some tables."""
    return tuple(entity for table in tables for entity in entities(table))


@cache
def all_facts(tables: tuple[str, ...] = TABLES) -> tuple[tuple[Entity, str, str], ...]:
    """Every fact of some tables as (entity, relation, attribute)."""
    return tuple((entity, relation, value) for entity in all_entities(tables) for relation, value in entity.facts)
