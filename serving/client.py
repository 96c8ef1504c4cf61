"""A small client of the gateway: its status, waiting for a model, and completions."""

from __future__ import annotations

import time

import httpx

from serving.errors import ServingError
from serving.record import DeploymentRecord
from serving.status import GatewayStatus

POLL_SECONDS = 0.5
"""Between two reads of the gateway's status."""


def gateway_status(base_url: str, key: str) -> GatewayStatus:
    """The gateway's status. It answers only to clients with the API key on its own machine.

    Raises:
        ServingError: nothing answers at the URL, the key is another gateway's, or it is not the gateway that answers.
    """
    try:
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{base_url}/headwater/status", headers=headers, timeout=10.0, trust_env=False)
        if answer.status_code == 401:
            raise ServingError(f"the gateway at {base_url} has another API key; is it another installation's?")
        answer.raise_for_status()
        return GatewayStatus.model_validate_json(answer.content)
    except httpx.TransportError as error:
        raise ServingError(f"the gateway at {base_url} does not answer ({error}); `headwater up` starts it") from error
    except (httpx.HTTPStatusError, ValueError) as error:
        raise ServingError(f"the server at {base_url} is not Headwater's gateway: {error}") from error


def wait_until_serving(base_url: str, key: str, record: DeploymentRecord, timeout_seconds: float) -> GatewayStatus:
    """Waits until the stable deployment of a record that was just written gets the traffic.

    Raises:
        ServingError: its engine failed (with the engine's reason), or it took longer than `timeout_seconds`.
    """
    entry = record.stable
    assert entry is not None
    began = time.monotonic()
    while True:
        status = gateway_status(base_url, key)
        engine = status.engine(entry.model_digest, entry.key)
        if status.serving and status.serving.key == entry.key:
            return status
        # A failure before the gateway has read this record is one of an earlier attempt.
        is_current = status.record_updated is not None and status.record_updated >= record.updated
        if is_current and engine and engine.state == "failed":
            raise ServingError(f"{entry.names[1]} could not be served: {engine.reason}")
        if time.monotonic() - began > timeout_seconds:
            cause = status.record_error or (f"its engine is {engine.state}" if engine else "it has no engine yet")
            log = f"; log: {engine.log}" if engine and engine.log else ""
            raise ServingError(f"{entry.names[1]} is not served after {timeout_seconds:.0f} s: {cause}{log}")
        time.sleep(POLL_SECONDS)


def complete(base_url: str, key: str, model: str, prompt: str, max_tokens: int = 32) -> str:
    """The model's greedy completion of `prompt`.

    Raises:
        ServingError: the endpoint did not answer, or answered with an error, which the message quotes.
    """
    try:
        answer = httpx.post(
            f"{base_url}/v1/completions",
            headers={"Authorization": f"Bearer {key}"},
            json={"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0},
            timeout=300.0,
            trust_env=False,
        )
    except httpx.TransportError as error:
        raise ServingError(f"the endpoint at {base_url} does not answer: {error}") from error
    if answer.status_code != 200:
        raise ServingError(f"the endpoint at {base_url} answered {answer.status_code}: {answer.text[:500]}")
    return str(answer.json()["choices"][0]["text"])
