"""Published holes of vLLM, a test for each: what uses it is refused by the gateway and never reaches an engine."""

from __future__ import annotations

from typing import Any

import pytest

from serving.record import Deployment
from tests.serving.gateways import Gateway

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
MEDIA = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}}
EXPLOSION = {"structured_outputs": {"regex": "(a|a|aa)+b" * 20}}
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"

HOLES: dict[str, tuple[str, dict[str, Any], int]] = {
    "CVE-2026-22778: an image becomes code": (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, 400),
    "CVE-2026-24779: an address is fetched": (CHAT, {"messages": [{"role": "user", "content": [MEDIA]}]}, 400),
    "CVE-2026-34756: any number of sequences": (COMPLETION, {"prompt": "x", "n": 100_000}, 400),
    "CVE-2026-55574: a pattern that explodes": (COMPLETION, {"prompt": "x", **EXPLOSION}, 400),
    "PYSEC-2026-2303: embeddings kill the engine": (COMPLETION, {"prompt_embeds": "AAAA"}, 400),
    "PYSEC-2026-4350: log-probabilities of many tokens": (
        COMPLETION,
        {"prompt": "x", "logprob_token_ids": list(range(129))},
        400,
    ),
    "CVE-2026-105757: structured output kills an engine": (
        COMPLETION,
        {"prompt": "x", "structured_outputs": {"json": {"enum": list(range(80_000))}}},
        400,
    ),
    "PYSEC-2026-4353: another route": ("/inference/v1/generate", {"token_ids": [1]}, 404),
    "PYSEC-2026-4344: a chat template of the request": (
        CHAT,
        {"messages": [{"role": "user", "content": "x"}], "chat_template": "{{ self.__init__ }}"},
        400,
    ),
    "PYSEC-2026-4349: arguments of the chat template": (
        CHAT,
        {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
        400,
    ),
}


@pytest.fixture(scope="module")
def served(shared_gateway: Gateway) -> Deployment:
    return shared_gateway.serve(shared_gateway.model({"chat_template.jinja": b"{{ messages[0].content }}"}), 1)


@pytest.mark.parametrize("hole", HOLES)
def test_a_published_hole_is_closed(shared_gateway: Gateway, served: Deployment, hole: str) -> None:
    path, fields, status = HOLES[hole]
    pid = shared_gateway.engine_pid()
    with shared_gateway.client() as client:
        answer = client.post(path, json={"model": "toy", "max_tokens": 1, **fields})
        again = client.post(COMPLETION, json={"model": "toy", "prompt": "fine", "max_tokens": 1})
    assert answer.status_code == status, answer.text
    assert again.status_code == 200 and shared_gateway.engine_pid() == pid, "the engine is the same"


@pytest.mark.parametrize(
    "path", [COMPLETION, CHAT, "/v1/models", "//v1/models", "/v1/%6dodels", "/V1/models", "/v1//models"]
)
@pytest.mark.parametrize("key", ["", "Bearer", "Bearer x", "Basic eDp5", "bearer"])
def test_cve_2026_48746_no_spelling_of_a_route_is_answered_without_the_key(
    shared_gateway: Gateway, served: Deployment, path: str, key: str
) -> None:
    headers = {"Authorization": key} if key else {}
    with shared_gateway.client(key=False) as client:
        answers = [client.get(path, headers=headers), client.post(path, headers=headers, json={"model": "toy"})]
    assert {answer.status_code for answer in answers} <= {401, 404, 405}
