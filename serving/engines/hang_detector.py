"""Finds an engine that lives but does nothing any more, without taking a busy one for it.

Two things can hang: the server, which then does not answer `/health`, and the core behind it, which then makes no step
while requests wait (vLLM's `/health` says nothing about that). A busy core makes steps: however long a prompt is, vLLM
computes it in pieces of about 2,048 tokens, and after each piece its metrics move. So an engine counts as hung only
after `hang_timeout` seconds, and twelve looks in a row, without any sign: no health, or requests in flight and neither
a step nor an answer to a one-token probe of our own. (The probe is for an engine that is idle because its client does
not read; the metrics are for one that has so much to do that the probe has to wait.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import httpx

LOOKS = 12
"""Looks in a row without a sign of life, after which an engine counts as hung."""
PROBE_AT = 4
"""Silent looks after which the engine is asked for one token."""
STEP_METRICS = (
    "vllm:iteration_tokens_total_count",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
"""What the core reports after a step; the server alone changes none of them."""


async def until_hung(client: httpx.AsyncClient, model: str, hang_timeout: float, in_flight: Callable[[], int]) -> str:
    """Watches a serving engine; returns only when it hangs, with the reason in words.

    Looks are counted rather than seconds, so that a gateway that was itself stopped for a while (a suspended laptop)
    does not blame the engine.
    """
    interval = hang_timeout / LOOKS
    deaf = silent = 0
    steps = ""
    probe: asyncio.Task[bool] | None = None
    try:
        while True:
            await asyncio.sleep(interval)
            try:
                health = await client.get("/health", timeout=interval)
                metrics = await client.get("/metrics", timeout=interval)
            except httpx.HTTPError:
                deaf += 1
                if deaf >= LOOKS:
                    return f"the engine hangs: it has not answered {deaf} health checks in {hang_timeout:.0f} s"
                continue
            deaf = 0
            if health.status_code >= 500:
                return f"the engine says that it is dead (/health answers {health.status_code})"
            before, steps = steps, _steps(metrics)
            answered = probe is not None and probe.done() and probe.result()
            if not in_flight() or steps != before or answered:
                silent = 0
                if probe:
                    probe.cancel()
                    probe = None
                continue
            silent += 1
            if silent >= LOOKS:
                return f"the engine hangs: requests wait, and it has computed nothing for {hang_timeout:.0f} s"
            if silent >= PROBE_AT and (probe is None or probe.done()):
                probe = asyncio.create_task(_one_token(client, model))
    finally:
        if probe:
            probe.cancel()


def _steps(metrics: httpx.Response) -> str:
    """The lines that move when the core makes a step; empty for an engine that has none."""
    return "\n".join(line for line in metrics.text.splitlines() if line.startswith(STEP_METRICS))


async def _one_token(client: httpx.AsyncClient, model: str) -> bool:
    request = {"model": model, "prompt": "The", "max_tokens": 1, "temperature": 0}
    with contextlib.suppress(httpx.HTTPError):
        return (await client.post("/v1/completions", json=request)).status_code == 200
    return False
