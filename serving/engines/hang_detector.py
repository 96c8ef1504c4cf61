"""Detects an engine that is alive but makes no progress, without mistaking a busy one for it.

Two parts can hang: the HTTP server, which then does not answer `/health`; and the engine core behind it, which then
makes no step while requests wait (vLLM's `/health` does not show that). A busy core makes steps: vLLM prefills a prompt
of any length in chunks of about 2,048 tokens, and its metrics change after each. So an engine counts as hung only after
`hang_timeout_seconds`, and twelve checks in a row, without a sign of progress: `/health` does not answer, or requests
are in flight and neither a step nor an answer to our own one-token probe was seen. (The probe is for an engine that is
idle because its client does not read; the metrics are for one so busy that the probe has to wait.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import httpx

CHECKS = 12
"""Checks in a row without progress after which an engine counts as hung."""
PROBE_AFTER_CHECKS = 4
"""Checks without progress after which one token is requested from the engine."""
STEP_METRICS = (
    "vllm:iteration_tokens_total_count",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
"""Metrics that the core updates after a step; the server alone changes none of them."""


class HangDetector:
    """Watches one engine that is ready.

    Args:
        in_flight: returns the number of requests that the engine is answering.
    """

    def __init__(
        self, client: httpx.AsyncClient, model: str, hang_timeout_seconds: float, in_flight: Callable[[], int]
    ):
        self.client, self.model, self.in_flight = client, model, in_flight
        self.hang_timeout_seconds = hang_timeout_seconds
        self._probe: asyncio.Task[bool] | None = None

    async def wait_until_hung(self) -> str:
        """Returns only when the engine hangs, with the reason.

        It counts checks rather than seconds, so that a gateway that was itself suspended for a while (a laptop) does
        not blame the engine.
        """
        interval = self.hang_timeout_seconds / CHECKS
        unanswered = stalled = 0
        steps = ""
        try:
            while True:
                await asyncio.sleep(interval)
                try:
                    health = await self.client.get("/health", timeout=interval)
                    metrics = await self.client.get("/metrics", timeout=interval)
                except httpx.HTTPError:
                    unanswered += 1
                    if unanswered >= CHECKS:
                        return (
                            f"the engine hangs: it did not answer {unanswered} health checks in "
                            f"{self.hang_timeout_seconds:.0f} s"
                        )
                    continue
                unanswered = 0
                if health.status_code >= 500:
                    return f"the engine reports that it is dead (/health answers {health.status_code})"
                previous, steps = steps, _step_metrics(metrics)
                if not self.in_flight() or steps != previous or self._probe_succeeded():
                    stalled = 0
                    self._cancel_probe()
                    continue
                stalled += 1
                if stalled >= CHECKS:
                    return (
                        "the engine hangs: requests are in flight, and it computed nothing for "
                        f"{self.hang_timeout_seconds:.0f} s"
                    )
                if stalled >= PROBE_AFTER_CHECKS and (self._probe is None or self._probe.done()):
                    self._probe = asyncio.create_task(self._generate_one_token())
        finally:
            self._cancel_probe()

    def _probe_succeeded(self) -> bool:
        return self._probe is not None and self._probe.done() and self._probe.result()

    def _cancel_probe(self) -> None:
        if self._probe:
            self._probe.cancel()
            self._probe = None

    async def _generate_one_token(self) -> bool:
        request = {"model": self.model, "prompt": "The", "max_tokens": 1, "temperature": 0}
        with contextlib.suppress(httpx.HTTPError):
            return (await self.client.post("/v1/completions", json=request)).status_code == 200
        return False


def _step_metrics(metrics: httpx.Response) -> str:
    """The lines that change when the core makes a step; empty for an engine that has none."""
    return "\n".join(line for line in metrics.text.splitlines() if line.startswith(STEP_METRICS))
