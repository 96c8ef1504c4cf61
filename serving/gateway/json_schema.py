"""Bounds on JSON schemas, which an engine compiles into an automaton over its vocabulary before it answers.

The compiler runs on after the client has left, and its time does not depend on the schema's size alone: on a slow core
a schema of 40 bytes, `{"type": "string", "maxLength": 1000}`, takes 10 s with a vocabulary of 32,000 tokens. What costs
is bounded here: nodes, enumerated values, repetitions (of characters, items, parts of patterns), and references that
never reach a value. A tree that contains itself in a property is allowed: a compiler makes a rule of each reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal
from urllib.parse import unquote

from serving.config import JsonSchemaLimits
from serving.gateway.patterns import PatternError, pattern_repetitions

REPETITIONS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains",
               "maxContains")  # fmt: skip
COMBINATIONS = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
"""Keywords whose schemas hold for the same value as the schema that has them."""
NAMES = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords that have an object of schemas by name."""
VALUES = ("enum", "const", "default", "examples")
"""Keywords that have values, not schemas."""
REMOTE = ("$dynamicRef", "$recursiveRef")
"""References that depend on more than their text."""
Kind = Literal["schema", "names", "value"]


class SchemaError(ValueError):
    """A schema is beyond a limit. The message says which one."""


def check_schemas(schemas: list[dict[str, Any]], limits: JsonSchemaLimits) -> None:
    """Checks the schemas of one request, which share the limits.

    Raises:
        SchemaError: they are beyond a limit.
    """
    _at_most("bytes", sum(len(json.dumps(schema)) for schema in schemas), limits.max_bytes)
    walk = _Walk(limits)
    for schema in schemas:
        walk.visit(schema, "schema", 1)
        _check_references(schema)


class _Walk:
    """Counts what the schemas of a request have, and stops at the first limit."""

    def __init__(self, limits: JsonSchemaLimits):
        self.limits = limits
        self.nodes = self.enum_values = self.repetitions = 0

    def visit(self, node: Any, kind: Kind, depth: int) -> None:
        """Counts a node and all below it."""
        self.nodes += 1
        _at_most("nodes", self.nodes, self.limits.max_nodes)
        if isinstance(node, str):
            _at_most("characters in one string", len(node), self.limits.max_string_length)
        if not isinstance(node, dict | list):
            return
        _at_most("levels", depth, self.limits.max_depth)
        if isinstance(node, list):
            for item in node:
                self.visit(item, kind, depth + 1)
            return
        if kind == "schema":
            self._check_keywords(node)
        for key, inner in node.items():
            _at_most("characters in one name", len(key), self.limits.max_string_length)
            if key == "patternProperties":
                # Also as a property's name: vLLM takes either for the keyword, and then a compiler that writes out
                # every reference.
                raise SchemaError("patternProperties is not supported")
            self.visit(inner, _kind_below(kind, key), depth + 1)

    def _check_keywords(self, schema: dict[str, Any]) -> None:
        if found := [key for key in REMOTE if key in schema]:
            raise SchemaError(f"{found[0]} is not supported")
        if isinstance(enum := schema.get("enum"), list):
            self.enum_values += len(enum)
            _at_most("enumerated values", self.enum_values, self.limits.max_enum_values)
        counts = {key: schema[key] for key in REPETITIONS if key in schema}
        for key, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise SchemaError(f"{key} must be an integer from 0 on")
        self.repetitions += max(counts.values(), default=0)
        if "pattern" in schema:
            self.repetitions += self._pattern_repetitions(schema["pattern"])
        _at_most(
            "repetitions (minLength, maxItems, {n} in patterns, ...)", self.repetitions, self.limits.max_repetitions
        )

    def _pattern_repetitions(self, pattern: Any) -> int:
        if not isinstance(pattern, str):
            raise SchemaError("pattern must be a string")
        _at_most("characters in a pattern", len(pattern), self.limits.max_pattern_length)
        try:
            return pattern_repetitions(pattern)
        except PatternError as error:
            raise SchemaError(f"the pattern {pattern!r} {error}") from None


def _kind_below(kind: Kind, key: str) -> Kind:
    """What the value of a key is, in an object of this kind."""
    if kind == "schema":
        return "value" if key in VALUES else "names" if key in NAMES else "schema"
    return "schema" if kind == "names" else "value"


def _at_most(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise SchemaError(f"more than {limit} {what}")


def _check_references(root: Any) -> None:
    """Refuses references to elsewhere, to nothing, and those that lead back to themselves without a value between."""
    same_value: dict[int, list[int]] = {}
    for node in _objects(root):
        targets = [inner for key in COMBINATIONS if key in node for inner in _as_list(node[key])]
        if isinstance(reference := node.get("$ref"), str):
            targets.append(_resolve(root, reference))
        same_value[id(node)] = [id(target) for target in targets if isinstance(target, dict)]
    try:
        TopologicalSorter(same_value).prepare()
    except CycleError:
        raise SchemaError("a $ref leads back to itself") from None


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else _as_list(node) if isinstance(node, list) else ():
        yield from _objects(inner)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _resolve(root: Any, reference: str) -> Any:
    """What a JSON pointer (RFC 6901) in a reference points at."""
    pointer, _, path = unquote(reference).partition("/")
    if pointer != "#":
        raise SchemaError(f"$ref {reference!r} must begin with '#/': only references within the schema are supported")
    node = root
    for part in path.split("/") if path else ():
        part = part.replace("~1", "/").replace("~0", "~")
        try:
            node = node[int(part)] if isinstance(node, list) else node[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise SchemaError(f"$ref {reference!r} points at nothing") from None
    return node
