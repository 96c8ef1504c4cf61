"""Which JSON schemas an engine may be asked to compile, whichever field of a request they are in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.config import JsonSchemaLimits, LimitsConfig
from serving.gateway.checks import check_request
from serving.gateway.json_schema import SchemaError, check_schemas
from serving.gateway.patterns import PatternError, pattern_repetitions
from serving.gateway.responses import RefusedError

Schema = dict[str, Any]
LIMITS = JsonSchemaLimits()
TREE: Schema = {
    "$defs": {
        "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "value": {"type": "string"}}}
    },
    "$ref": "#/$defs/tree",
}
ORDINARY: Schema = {
    "type": "object",
    "properties": {
        "pattern": {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}(\.[a-z]+)?$"},
        "enum": {"enum": ["a", 1, None, {"minLength": "no keyword here", "pattern": "("}]},
        "properties": {"type": "array", "items": {"$ref": "#/properties/enum"}, "maxItems": 20},
        "a/b": {"anyOf": [{"$ref": "#/properties/a~1b/anyOf/1"}, {"type": "integer", "minimum": -(1 << 62)}]},
    },
    "required": ["pattern"],
    "additionalProperties": False,
}


def nested(levels: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


REFUSED: dict[str, tuple[Schema, str]] = {
    "enum": ({"enum": [f"v{i}" for i in range(80_000)]}, "bytes"),
    "short enum": ({"enum": list(range(501))}, "enumerated values"),
    "several enums": ({"anyOf": [{"enum": list(range(300))}] * 2}, "enumerated values"),
    "nodes": ({"required": ["a"] * 2000}, "nodes"),
    "depth": (nested(32), "levels"),
    "string": ({"const": "x" * 3000}, "characters in one string"),
    "name": ({"properties": {"x" * 3000: {}}}, "characters in one name"),
    "maxItems": ({"type": "array", "maxItems": 10**9}, "repetitions"),
    "minLength": ({"type": "string", "minLength": 10**9}, "repetitions"),
    "float": ({"type": "string", "maxLength": 1e9}, "must be an integer"),
    "many": ({"properties": {f"p{i}": {"maxLength": 64} for i in range(5)}}, "repetitions"),
    "long pattern": ({"pattern": "a" * 257}, "characters in a pattern"),
    "exploding pattern": ({"pattern": "^((a{50}){50}){50}$"}, "repetitions"),
    "nested quantifiers": ({"pattern": "^(a+)+$"}, "within another quantifier"),
    "propertyNames": ({"propertyNames": {"pattern": "(a*)*"}}, "within another quantifier"),
    "itself": ({"$ref": "#"}, "leads back to itself"),
    "itself in turns": ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#"}]}}}, "leads back to itself"),
    "elsewhere": ({"$ref": "http://192.0.2.1/schema"}, "must begin with '#/'"),
    "nothing": ({"$ref": "#/$defs/gone"}, "points at nothing"),
    "dynamic": ({"$dynamicRef": "#a"}, "not supported"),
    "patternProperties": ({"patternProperties": {"(a+)+": {}}}, "not supported"),
    "named patternProperties": ({"properties": {"patternProperties": {}}}, "not supported"),
}  # fmt: skip


@pytest.mark.parametrize("schema", [{}, ORDINARY, TREE, nested(30)])
def test_ordinary_schemas_are_accepted(schema: Schema) -> None:
    check_schemas([schema], LIMITS)


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_costs_too_much_is_refused_with_the_reason(name: str) -> None:
    schema, words = REFUSED[name]
    with pytest.raises(SchemaError, match=words):
        check_schemas([schema], LIMITS)


def test_the_schemas_of_a_request_share_the_limits() -> None:
    schema: Schema = {"type": "string", "maxLength": 200}
    check_schemas([schema], LIMITS)
    with pytest.raises(SchemaError, match="repetitions"):
        check_schemas([schema, schema], LIMITS)
    check_schemas([schema, schema], JsonSchemaLimits(max_repetitions=400))


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("abc", 0),
        ("a{3}", 3),
        ("(a{3}b){2}", 8),
        (r"^(\d{1,3}\.){3}\d{1,3}$", 15),
        (r"[\]a{9}]{2}\{5}", 2),
        ("(?:a{2,}b)?c*?", 2),
        ("a{,7}", 7),
    ],
)
def test_the_counted_repetitions_of_a_pattern_are_written_out(pattern: str, count: int) -> None:
    assert pattern_repetitions(pattern) == count


@pytest.mark.parametrize("pattern", ["(", ")", "[a", "(?=a)", r"(a)\1", "(a*){9}", "(a{2,})+", "a{50}{50}", "(?i)a"])
def test_a_pattern_that_cannot_be_bounded_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        pattern_repetitions(pattern)


HUGE: Schema = {"type": "string", "maxLength": 10**6}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": HUGE}}}, "bad_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "json_schema": HUGE}}},
            "unknown_field",
        ),
        ({"response_format": {"type": "json_schema"}}, "bad_field"),
        ({"response_format": {"type": "json_object", "schema": HUGE}}, "unknown_field"),
        ({"response_format": {"type": "structural_tag", "format": {}}}, "bad_field"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": HUGE}}]}, "bad_schema"),
        ({"tools": [{"type": "function", "function": {"name": "f", "schema": HUGE}}]}, "unknown_field"),
        ({"tools": [{"type": "function", "function": {"name": "f" * 65}}]}, "bad_field"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "bad_field"),
        ({"guided_json": HUGE}, "unknown_field"),
        ({"guided_regex": "(a+)+"}, "unknown_field"),
        ({"guided_grammar": "root ::= root"}, "unknown_field"),
        ({"guided_choice": ["a"]}, "unknown_field"),
        ({"structured_outputs": {"regex": "(a+)+"}}, "unknown_field"),
    ],
)
def test_every_way_to_a_grammar_is_bounded(fields: Schema, code: str) -> None:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    with pytest.raises(RefusedError) as caught:
        check_request("/v1/chat/completions", body, LimitsConfig(), has_chat_template=True)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert str(caught.value.param).startswith(next(iter(fields)))


def test_ordinary_structured_output_is_forwarded_unchanged() -> None:
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": ORDINARY}},
        "tools": [{"type": "function", "function": {"name": "f.g-h_1", "description": "d", "parameters": TREE}}],
        "tool_choice": "required",
    }
    body = json.dumps(fields).encode()
    assert check_request("/v1/chat/completions", body, LimitsConfig(), has_chat_template=True) == fields
