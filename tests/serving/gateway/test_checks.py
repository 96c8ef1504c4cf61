"""Which requests are forwarded to the engine, and which are refused."""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import LimitsConfig
from serving.gateway.checks import FIELDS, check_request
from serving.gateway.responses import RefusedError
from tests.support import examples

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
LIMITS = LimitsConfig(max_sequences=8)


def check(fields: dict[str, object], path: str = COMPLETIONS, chat: bool = True) -> dict[str, object]:
    """What is forwarded of a request to model `m`."""
    body = json.dumps({"model": "m", **fields}).encode()
    return check_request(path, body, LIMITS, has_chat_template=chat)


def refused(fields: dict[str, object], path: str = COMPLETIONS, chat: bool = True) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check(fields, path, chat)
    assert caught.value.status == 400
    return caught.value


def test_the_requests_of_an_evaluation_are_forwarded_unchanged() -> None:
    fields = {
        "model": "m",
        "prompt": [[1, 2], [3]],
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,
        "seed": 7,
        "stop": [],
    }
    assert check(fields) == fields


@given(st.text().filter(lambda name: name not in FIELDS[COMPLETIONS]), st.none() | st.integers() | st.text())
def test_unknown_fields_are_refused(name: str, value: object) -> None:
    assert refused({"prompt": "x", name: value}).param == name


@pytest.mark.parametrize(
    "name",
    [
        *("vllm_xargs", "kv_transfer_params", "prompt_embeds", "structured_outputs", "prompt_logprobs", "priority"),
        *("chat_template", "chat_template_kwargs", "logprob_token_ids", "media_io_kwargs", "mm_processor_kwargs"),
    ],
)
def test_fields_that_control_the_engine_are_refused(name: str) -> None:
    assert refused({"prompt": "x", name: {}}).code == "unknown_field"
    assert refused({"messages": [], name: {}}, CHAT).code == "unknown_field"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 9},
        {"n": 0},
        {"n": True},
        {"n": 3, "prompt": ["a", "b", "c"]},
        {"prompt": ["x"] * 9},
        {"prompt": [[1]] * 9},
        {"max_tokens": -1},
        {"max_tokens": 10**9},
        {"max_tokens": "5"},
        {"logprobs": 21},
        {"best_of": 2},
        {"top_k": 1 << 31},
        {"truncate_prompt_tokens": 1 << 31},
        {"prompt": [5, -1]},
        {"prompt": [[1], [1 << 31]]},
        {"stop_token_ids": [-1]},
        {"logit_bias": {str(i): 1 for i in range(2000)}},
        {"response_format": {"type": "structural_tag"}},
    ],
)
def test_values_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    assert refused({"prompt": "x", **fields}).code


@pytest.mark.parametrize("model", [None, "", 5, ["m"]])
def test_a_request_names_its_model(model: object) -> None:
    assert refused({"prompt": "x", "model": model}).param == "model"
    with pytest.raises(RefusedError, match="model must be"):
        check_request(COMPLETIONS, b'{"prompt": "x"}', LIMITS, has_chat_template=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELD = st.sampled_from(sorted(FIELDS[COMPLETIONS] | FIELDS[CHAT]))


@examples(50)
@given(st.dictionaries(FIELD, JSON, max_size=4), st.binary(max_size=3), st.integers(0, 200), st.sampled_from([*FIELDS]))
def test_every_body_is_refused_or_can_be_forwarded(
    fields: dict[str, object], damage: bytes, place: int, path: str
) -> None:
    whole = json.dumps({"model": "m", **fields}).encode()
    for body in (whole, whole[:place] + damage + whole[place + len(damage) :]):
        try:
            forwarded = check_request(path, body, LIMITS, has_chat_template=True)
        except RefusedError as refusal:
            assert refusal.status == 400 and refusal.response().body
        else:
            assert httpx.Request("POST", "http://engine", json=forwarded).content


def test_ignored_fields_are_accepted_and_not_forwarded() -> None:
    assert check({"prompt": "x", "best_of": 1, "store": False, "metadata": {}}) == {"model": "m", "prompt": "x"}


def test_chat_needs_a_template_and_accepts_only_text() -> None:
    text: dict[str, object] = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    assert check(text, CHAT) == text
    assert refused(text, CHAT, chat=False).code == "no_chat_template"
    url = {"url": "http://192.0.2.1/x"}
    for kind in ("image_url", "video_url", "input_audio"):
        part = {"type": kind, kind: url}
        for content in ([part], part, [{"type": "text", "text": "x"}, part], [{kind: url}]):
            assert refused({"messages": [{"role": "user", "content": content}]}, CHAT).param == "messages"
