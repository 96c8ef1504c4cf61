"""Which bodies are JSON objects that can be forwarded, and what the refusal of others names."""

import json

import pytest

from serving.gateway.json_body import MAX_DEPTH, parse_object
from serving.gateway.responses import RefusedError

HALF = r'"\ud800"'


def refusal(body: str | bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse_object(body.encode() if isinstance(body, str) else body)
    answer = json.loads(bytes(caught.value.response().body))["error"]
    assert caught.value.status == 400 and answer["type"] == "invalid_request_error"
    assert set(answer) == {"message", "type", "param", "code"}
    return caught.value


def nested(levels: int) -> str:
    return '{"stop": ' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"a":1}x',
        b'{"a":1,}',
        b'{"n": 1, "n": 2}',
        b'{"tools": [{"\\ud800": 1, "\\ud800": 2}]}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"prompt": "x"}',
        '{"prompt": "x"}'.encode("utf-16"),
        '{"prompt": "x"}'.encode("utf-16-le"),
        b"[" * 100_000,
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_refused(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


@pytest.mark.parametrize(
    "value", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 5000, str(10**30), str(1 << 63)]
)
def test_a_number_that_no_engine_can_represent_is_refused_by_name(value: str) -> None:
    assert refusal(f'{{"prompt": "x", "temperature": {value}}}').param == "temperature"
    assert refusal(f'{{"logit_bias": {{"5": [1, {value}]}}}}').param == "logit_bias.5[1]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (f'{{"prompt": {HALF}}}', "prompt"),
        (f'{{"prompt": ["x", {HALF}]}}', "prompt[1]"),
        (f'{{"stop": [{HALF}]}}', "stop[0]"),
        (f'{{"model": {HALF}}}', "model"),
        (f'{{"metadata": {{"a": {HALF}}}}}', "metadata.a"),
        (f'{{"messages": [{{"content": [{{"text": {HALF}}}]}}]}}', "messages[0].content[0].text"),
        (f'{{"tools": [{{"function": {{{HALF}: 1}}}}]}}', "tools[0].function"),
        (f"{{{HALF}: 1}}", None),
        (f'{{"": {HALF}}}', ""),
        (r'{"user": "\udc00\ud83d"}', "user"),
    ],
)
def test_half_a_surrogate_pair_is_refused_by_name(body: str, param: str | None) -> None:
    error = refusal(body)
    assert error.param == param and "surrogate" in error.message


def test_nesting_is_limited() -> None:
    assert parse_object(nested(MAX_DEPTH).encode()) == json.loads(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 900):  # Python's parser accepts both
        assert "nested deeper" in refusal(nested(levels)).message


def test_what_json_allows_is_unchanged() -> None:
    body = r'{"prompt": "\ud83e\uddea \u0000 \uffff", "seed": -9223372036854775808, "top_p": 1e-400, "tools": [{}, []]}'
    assert parse_object(body.encode()) == json.loads(body)
