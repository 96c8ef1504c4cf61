"""An engine's environment, and the requests that it must answer before it is ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.config import EngineConfig, LimitsConfig
from serving.deploy import deploy
from serving.engines.engine import WARM_UP_REQUESTS, engine_environment
from serving.errors import ServingError
from serving.gateway.checks import check_request
from serving.record import deployment_of
from tests.serving.gateways import Gateway


@pytest.mark.parametrize(("eager", "disabled"), [(True, "1"), (False, "0")])
def test_eager_mode_compiles_nothing(tmp_path: Path, eager: bool, disabled: str) -> None:
    environment = engine_environment(EngineConfig(enforce_eager=eager), tmp_path)
    assert environment["TORCH_COMPILE_DISABLE"] == disabled


def test_the_warm_up_makes_requests_that_clients_may_make() -> None:
    given = {name for fields in WARM_UP_REQUESTS.values() for name in fields}
    assert {"stream", "logprobs", "n", "response_format"} <= given
    for fields in WARM_UP_REQUESTS.values():
        body = json.dumps({"model": "m", "prompt": "x", **fields}).encode()
        assert check_request("/v1/completions", body, LimitsConfig(), has_chat_template=False)


@pytest.mark.parametrize("field", ["stream", "logprobs", "n", "response_format"])
def test_an_engine_that_one_kind_of_request_kills_is_never_ready(gateway: Gateway, field: str) -> None:
    entry = deployment_of(gateway.model(crashes_at=field), "toy", 1)
    with pytest.raises(ServingError, match="the engine failed at its first"):
        deploy(entry, gateway.store, gateway.url, gateway.key, timeout_seconds=60)
