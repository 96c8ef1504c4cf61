"""Request validation: the body is read within limits and checked field by field.

Fields are allow-listed, because vLLM's requests have fields that control the engine (`vllm_xargs`, `prompt_embeds`,
`kv_transfer_params`, `chat_template`, `structured_outputs` with arbitrary grammars, ...) and every release adds some.
Only what was checked is forwarded: the body is serialized again from the parsed JSON.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from serving.config import LimitsConfig
from serving.gateway.json_body import parse_object
from serving.gateway.json_schema import SchemaError, check_schemas
from serving.gateway.responses import RefusedError

_COMMON = """
    model stream stream_options user metadata store n best_of max_tokens min_tokens ignore_eos stop stop_token_ids
    include_stop_str_in_output temperature top_p top_k min_p seed logit_bias presence_penalty frequency_penalty
    repetition_penalty logprobs skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens
    add_special_tokens response_format return_tokens_as_token_ids return_token_ids
"""
_COMPLETION = "prompt echo suffix"
_CHAT = """
    messages top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls add_generation_prompt
    continue_final_message
"""
FIELDS = {
    "/v1/completions": frozenset(f"{_COMMON} {_COMPLETION}".split()),
    "/v1/chat/completions": frozenset(f"{_COMMON} {_CHAT}".split()),
}
"""Fields that a request may have, by route."""
IGNORED_FIELDS = ("best_of", "metadata", "store")
"""OpenAI fields that clients often send and that have no meaning here; they are not forwarded."""
MAX_INT32 = (1 << 31) - 1
"""The engine's tensors hold token ids and `top_k` in 32 bits; a larger one would fail there."""
RESPONSE_FORMATS = ("text", "json_object", "json_schema")
MAX_TOOLS = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


async def read_body(request: Request, limits: LimitsConfig) -> bytes:
    """Reads the request body.

    Raises:
        RefusedError: 413 if it is too large, 408 if it is too slow, 499 if the client disconnected.
    """
    too_large = RefusedError(413, f"the request body is larger than {limits.max_body_bytes} bytes", "body_too_large")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.max_body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_body_bytes:
                    raise too_large
    except TimeoutError:
        raise RefusedError(
            408, f"the body did not arrive within {limits.body_timeout_seconds:.0f} s", "body_timeout"
        ) from None
    except ClientDisconnect:
        raise RefusedError(499, "the client disconnected", "client_closed_request") from None
    return bytes(body)


def check_request(path: str, body: bytes, limits: LimitsConfig, *, has_chat_template: bool) -> dict[str, Any]:
    """Parses and checks a request body; returns the fields to forward to the engine.

    Raises:
        RefusedError: 400, with the field and the reason.
    """
    fields = parse_object(body)
    unknown = sorted(set(fields) - FIELDS[path])
    if unknown:
        raise RefusedError(400, f"field {unknown[0]!r} is not supported by this endpoint", "unknown_field", unknown[0])
    if path == "/v1/chat/completions" and not has_chat_template:
        raise RefusedError(
            400,
            "this model has no chat template: it completes text and was not trained on conversations; "
            "send a prompt to /v1/completions instead",
            "no_chat_template",
        )
    _check_model(fields)
    _check_numbers(fields, limits)
    _check_prompt(fields, limits)
    _check_messages(fields.get("messages"))
    _check_structured_output(fields, limits)
    return {name: value for name, value in fields.items() if name not in IGNORED_FIELDS}


def _check_model(fields: dict[str, Any]) -> None:
    """An engine takes a missing name for its own model: the client would get another one's answer after an exchange."""
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise RefusedError(400, "model must be the name of a model of /v1/models", "bad_field", "model")


def _check_numbers(fields: dict[str, Any], limits: LimitsConfig) -> None:
    bounds = {
        "n": (1, limits.max_sequences),
        "max_tokens": (0, 1 << 20),
        "max_completion_tokens": (0, 1 << 20),
        "min_tokens": (0, 1 << 20),
        "top_logprobs": (0, limits.max_logprobs),
        "best_of": (1, 1),
        "top_k": (-1, MAX_INT32),
        "truncate_prompt_tokens": (-1, 1 << 20),
    }
    if not isinstance(fields.get("logprobs"), bool):
        bounds["logprobs"] = (0, limits.max_logprobs)
    for name, (least, most) in bounds.items():
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise RefusedError(400, f"{name} must be an integer from {least} to {most}", "bad_field", name)
    for name, most in (("logit_bias", 1024), ("stop", 64), ("stop_token_ids", 64)):
        value = fields.get(name)
        if isinstance(value, dict | list) and len(value) > most:
            raise RefusedError(400, f"{name} may have at most {most} entries", "bad_field", name)


def _check_prompt(fields: dict[str, Any], limits: LimitsConfig) -> None:
    prompt = fields.get("prompt")
    for name in ("prompt", "stop_token_ids"):
        if not all(0 <= token <= MAX_INT32 for token in _integers(fields.get(name))):
            raise RefusedError(400, f"a token id in {name} must be from 0 to {MAX_INT32}", "bad_field", name)
    count = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    if count * (fields.get("n") or 1) > limits.max_sequences:
        raise RefusedError(
            400, f"one request may have at most {limits.max_sequences} sequences (prompts times n)", "bad_field", "n"
        )


def _integers(value: Any) -> Iterator[int]:
    """The integers of a list, or of a list of lists."""
    for item in value if isinstance(value, list) else []:
        yield from [item] if isinstance(item, int) else _integers(item)


def _check_messages(messages: Any) -> None:
    """Allows text only: vLLM would download what an image or audio part refers to."""
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [] if content is None or isinstance(content, str) else [None]
        for part in parts:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise RefusedError(400, "messages may contain only text", "bad_field", "messages")


def _check_structured_output(fields: dict[str, Any], limits: LimitsConfig) -> None:
    """Bounds the grammars that the engine compiles: of `response_format`, and of the tools that it must call."""
    schemas = {
        "response_format": _response_schemas(fields.get("response_format")),
        "tools": _tool_schemas(fields.get("tools")),
    }
    for name, found in schemas.items():
        try:
            check_schemas(found, limits.json_schema)
        except SchemaError as error:
            raise RefusedError(400, f"the JSON schema in {name} is refused: {error}", "bad_schema", name) from None


def _response_schemas(form: Any) -> list[dict[str, Any]]:
    if form is None:
        return []
    name = "response_format"
    if not isinstance(form, dict) or form.get("type") not in RESPONSE_FORMATS:
        raise RefusedError(400, f"{name}.type must be one of {', '.join(RESPONSE_FORMATS)}", "bad_field", name)
    _check_keys(form, ("type", "json_schema"), name)
    if form["type"] != "json_schema":
        return []
    described = _check_keys(form.get("json_schema"), ("name", "description", "schema", "strict"), f"{name}.json_schema")
    return [_check_keys(described.get("schema"), None, f"{name}.json_schema.schema")]


def _tool_schemas(tools: Any) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise RefusedError(400, f"tools must be a list of at most {MAX_TOOLS} objects", "bad_field", "tools")
    found = []
    for number, tool in enumerate(tools):
        name = f"tools[{number}]"
        function = _check_keys(tool, ("type", "function"), name).get("function")
        function = _check_keys(function, ("name", "description", "parameters", "strict"), f"{name}.function")
        if not isinstance(function.get("name"), str) or not TOOL_NAME.fullmatch(function["name"]):
            raise RefusedError(400, f"{name}.function.name must match {TOOL_NAME.pattern}", "bad_field", name)
        if function.get("parameters") is not None:
            found.append(_check_keys(function["parameters"], None, f"{name}.function.parameters"))
    return found


def _check_keys(value: Any, allowed: tuple[str, ...] | None, name: str) -> dict[str, Any]:
    """The value, which must be an object with no other keys than these (None: any)."""
    if not isinstance(value, dict):
        raise RefusedError(400, f"{name} must be an object", "bad_field", name)
    unknown = sorted(set(value) - set(allowed)) if allowed else []
    if unknown:
        raise RefusedError(400, f"{name} has the unknown key {unknown[0]!r}", "unknown_field", f"{name}.{unknown[0]}")
    return value
