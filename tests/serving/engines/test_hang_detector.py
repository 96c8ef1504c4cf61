"""A busy engine is not taken for one that hangs (which test_slot.py has killed)."""

from __future__ import annotations

from serving.config import EngineConfig, ServingConfig
from serving.engines.hang_detector import CHECKS
from tests.serving.gateways import Gateway, ask


def test_a_busy_engine_is_left_alone(gateway: Gateway) -> None:
    gateway.serve(
        gateway.model(), 1, ServingConfig(engine=EngineConfig(stop_grace_seconds=0.2, hang_timeout_seconds=0.8))
    )
    with gateway.client() as client:
        # Even a probe has to wait, but the metrics show steps.
        assert ask(client, f"busy {CHECKS + 4}").status_code == 200
        # Its client does not read and nothing else is asked: no step, but probes are answered.
        assert ask(client, f"looks {CHECKS + 4}").status_code == 200
    assert (gateway.engine().starts, gateway.engine().failures) == (1, 0)
