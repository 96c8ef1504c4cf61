"""A busy engine is not mistaken for one that hangs (for those see test_slot.py)."""

from __future__ import annotations

from serving.config import EngineConfig, ServingConfig
from serving.engines.hang_detector import CHECKS
from tests.serving.gateways import Gateway, ask


def test_a_busy_engine_is_not_restarted(gateway: Gateway) -> None:
    gateway.serve(
        gateway.model(), 1, ServingConfig(engine=EngineConfig(stop_grace_seconds=0.2, hang_timeout_seconds=0.8))
    )
    with gateway.client() as client:
        # A probe has to wait too, but the metrics show steps.
        assert ask(client, f"busy {CHECKS + 4}").status_code == 200
        # Its client does not read, and there is no other request: no steps, but probes are answered.
        assert ask(client, f"looks {CHECKS + 4}").status_code == 200
    assert (gateway.engine().starts, gateway.engine().failures) == (1, 0)
