"""A small client of the gateway: wait until a model is served, and ask it something."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import httpx

from serving.errors import ServingError
from serving.gateway.status import EngineStatus, GatewayStatus

POLL_SECONDS = 0.5
"""Between two looks at what the gateway tells."""
Progress = Callable[[EngineStatus | None, float], None]
"""Called every `POLL_SECONDS` with the wanted model's engine (None: not begun) and the seconds waited."""


def gateway_status(base_url: str) -> GatewayStatus:
    """What the gateway tells about itself; from the gateway's own machine only.

    Raises:
        ServingError: nothing answers there, or something else does.
    """
    try:
        answer = httpx.get(f"{base_url}/headwater/status", timeout=10.0, trust_env=False)
        answer.raise_for_status()
        return GatewayStatus.model_validate_json(answer.content)
    except httpx.TransportError as error:
        raise ServingError(f"the gateway at {base_url} does not answer ({error}); `headwater up` starts it") from error
    except (httpx.HTTPStatusError, ValueError) as error:
        raise ServingError(f"what answers at {base_url} is not Headwater's gateway: {error}") from error


def wait_until_serving(
    base_url: str,
    digest: str,
    timeout: float,
    on_progress: Progress | None = None,
    key: str | None = None,
    since: datetime | None = None,
) -> GatewayStatus:
    """Waits until the model with this digest gets the traffic.

    `key` (`Deployment.key`) asks for more than the digest: also this name, version and engine settings.
    `since` is the `updated` of the record that was just written: failures from before the gateway read it do not count.

    Raises:
        ServingError: its engine failed (with the engine's reason), or it took longer than `timeout` seconds.
    """
    began = time.monotonic()
    while True:
        status = gateway_status(base_url)
        served = status.serving
        engine = status.engine(digest, key)
        waited = time.monotonic() - began
        if on_progress:
            on_progress(engine, waited)
        if served and served.model_digest == digest and key in (None, served.key):
            return status
        read = since is None or (status.record_updated is not None and status.record_updated >= since)
        if read and engine and engine.state == "failed":
            raise ServingError(f"{engine.name}@{engine.version} could not be served: {engine.reason}")
        if waited > timeout:
            about = status.record_error or (f"its engine is {engine.state}" if engine else "the gateway has not begun")
            log = f"; its log is {engine.log}" if engine and engine.log else ""
            raise ServingError(f"model {digest[:12]} is not served after {timeout:.0f} s: {about}{log}")
        time.sleep(POLL_SECONDS)


def complete(base_url: str, key: str, model: str, prompt: str, max_tokens: int = 32, temperature: float = 0.0) -> str:
    """The model's continuation of `prompt`.

    Raises:
        ServingError: the endpoint refused, with its reason.
    """
    try:
        answer = httpx.post(
            f"{base_url}/v1/completions",
            headers={"Authorization": f"Bearer {key}"},
            json={"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": temperature},
            timeout=300.0,
            trust_env=False,
        )
    except httpx.TransportError as error:
        raise ServingError(f"the endpoint at {base_url} does not answer: {error}") from error
    if answer.status_code != 200:
        raise ServingError(f"the endpoint at {base_url} answered {answer.status_code}: {answer.text[:500]}")
    return str(answer.json()["choices"][0]["text"])
