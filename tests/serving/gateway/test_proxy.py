"""What clients receive of an engine's answer: streamed, truncated, or cancelled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from serving.engines import slot
from tests.serving.gateways import Gateway, ask, unavailable, wait_for


def test_a_stream_is_forwarded_without_buffering(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(gateway.model(), 1)
    body = {"model": "toy", "prompt": "chunks 10", "stream": True}
    with gateway.client() as client:
        with client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert events[-1] == "[DONE]"
        assert "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1]) == "0 1 2 3 4 5 6 7 8 9 "

        file = tmp_path / "go on"
        with client.stream("POST", "/v1/completions", json={**body, "prompt": f"drip {file}"}) as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert '"0 "' in next(lines)  # the engine waits for us before the next event: this one was not buffered
            file.touch()
            assert '"1 "' in next(lines) and next(lines) == "data: [DONE]"


def test_the_engines_request_is_cancelled_when_the_client_disconnects(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(gateway.model(), 1)
    with gateway.client() as client:
        body = {"model": "toy", "prompt": "chunks 400", "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            assert "[DONE]" not in next(answer.iter_lines())
        wait_for(lambda: "aborted: stream" in gateway.logs())

    prompt = f"hold {tmp_path / 'never'}"

    async def disconnect() -> None:
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, verify=False) as client:
            asking = asyncio.create_task(
                client.post("/v1/completions", json={"model": "toy", "prompt": prompt}, timeout=60)
            )
            while f"asked: {prompt}" not in gateway.logs():
                await asyncio.sleep(0.02)
            assert not asking.done()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(disconnect())
    wait_for(lambda: f"aborted: {prompt}" in gateway.logs())
    wait_for(lambda: gateway.engine().in_flight == 0)


def test_an_engines_error_is_reported_without_its_text(gateway: Gateway) -> None:
    gateway.serve(gateway.model(), 1)
    with gateway.client() as client:
        error = ask(client, "error")
        assert error.status_code == 502 and error.json()["error"]["code"] == "engine_error"
        assert "secret" not in error.text
        assert ask(client, "hello").status_code == 200 and gateway.engine().starts == 1


def test_truncated_answers_are_well_formed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "INITIAL_BACKOFF_SECONDS", 0.1)
    gateway.serve(gateway.model(), 1)
    with gateway.client() as client:
        answer = ask(client, "cut", stream=True)
        events = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]
        assert [event.get("choices", [{}])[0].get("text") for event in events] == ["0 ", "1 ", None]
        assert events[-1]["error"]["code"] == "model_not_ready"

        wait_for(lambda: gateway.status().serving and gateway.engine().starts == 2)
        assert unavailable(ask(client, "cut"))  # in the middle of a plain answer
