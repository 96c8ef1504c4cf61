"""Fact tables: entities, their relations, and what else is true of them.

A table is the file ``facts/<table>.tsv`` in the package of its domain, tab-separated: one row an entity, one column a
relation. The last column, ``also``, lists further attributes that are true of the row in any relation, separated by
semicolons. Nothing is generated from them; they keep a true statement from being offered as a wrong option or denied
in a question.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources


@dataclass(frozen=True)
class Entity:
    """One row of a table: a drug, a country, a company."""

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


@dataclass(frozen=True)
class FactTables:
    """Some tables of one domain."""

    package: str
    """The domain's package, whose folder ``facts`` has the files."""
    names: tuple[str, ...]
    """In a fixed order, since the generators' choices depend on it."""
    universal: frozenset[str] = frozenset()
    """Attributes that can be argued for nearly anything of their type; they are never a wrong attribute."""

    def rows(self, table: str) -> tuple[Entity, ...]:
        """All rows of one table in file order.

        Raises:
            ValueError: a row has more or fewer cells than the header.
        """
        return _read(self.package, table)

    @cached_property
    def entities(self) -> tuple[Entity, ...]:
        """All rows of all tables."""
        return tuple(entity for table in self.names for entity in self.rows(table))

    @cached_property
    def facts(self) -> tuple[tuple[Entity, str, str], ...]:
        """Every fact as (entity, relation, attribute)."""
        return tuple((entity, relation, value) for entity in self.entities for relation, value in entity.facts)

    @cache  # noqa: B019 (there are a handful of instances, one a module)
    def values(self, table: str, relation: str) -> tuple[str, ...]:
        """All attributes of a relation, each once, in file order."""
        return tuple(dict.fromkeys(value for entity in self.rows(table) if (value := entity.get(relation))))

    def wrong_attributes(self, entity: Entity, relation: str) -> list[str]:
        """Attributes of the same relation that the tables do not hold to be true of ``entity``."""
        values = self.values(entity.table, relation)
        return [value for value in values if value not in self.universal and not entity.is_true(value)]

    def wrong_entities(self, table: str, attribute: str) -> list[str]:
        """Entities of ``table`` of which ``attribute`` is not held to be true."""
        return [entity.name for entity in self.rows(table) if not entity.is_true(attribute)]


@cache
def _read(package: str, table: str) -> tuple[Entity, ...]:
    text = (resources.files(package) / "facts" / f"{table}.tsv").read_text(encoding="utf-8")
    header, *rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    relations = header[1:-1]
    entities = []
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"facts/{table}.tsv: {row[0]!r} has {len(row)} cells, the header has {len(header)}")
        facts = tuple((name, value) for name, value in zip(relations, row[1:-1], strict=True) if value)
        entities.append(Entity(row[0], table, facts, frozenset(filter(None, row[-1].split(";")))))
    return tuple(entities)
