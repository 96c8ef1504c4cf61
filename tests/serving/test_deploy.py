"""Models are deployed, started as canary, withdrawn and refused, while the previous one stays in service."""

from __future__ import annotations

import pytest

from serving.client import complete
from serving.deploy import deploy, start_canary, stop_canary
from serving.engines import slot
from serving.errors import ServingError
from serving.record import DeploymentRecord, deployment_of, read_record, write_record
from stages.store import Store
from tests.serving.gateways import Gateway, fake_model, wait_for
from tests.support import free_port


def test_a_canary_is_ready_without_traffic(gateway: Gateway) -> None:
    store = gateway.store
    gateway.serve(gateway.model(), 1)
    second = deployment_of(gateway.model(), "toy", 2)
    start_canary(second, store)

    def canary_state() -> str | None:
        return next((e.state for e in gateway.status().engines if e.role == "canary"), None)

    wait_for(lambda: canary_state() == "ready")
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    status = deploy(second, store, gateway.url, gateway.key, timeout_seconds=120)
    promoted = status.engine(second.model_digest)
    assert promoted and (promoted.role, promoted.starts) == ("stable", 1)
    start_canary(deployment_of(gateway.model(), "toy", 3), store)
    wait_for(lambda: canary_state() == "ready")
    stop_canary(store)
    wait_for(lambda: canary_state() is None)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


def test_deploying_without_a_gateway_is_an_error(store: Store) -> None:
    entry = deployment_of(fake_model(store, "a"), "toy", 1)
    with pytest.raises(ServingError, match="headwater up"):
        deploy(entry, store, f"http://127.0.0.1:{free_port()}", "no key", timeout_seconds=1)


REFUSED = {
    "code": ({"modeling_x.py": b"import os"}, r"modeling_x\.py: \.py files are refused"),
    "pickle": ({"pytorch_model.bin": b"\x80\x02}q\x00."}, r"\.bin files are refused"),
    "hidden pickle": ({"model-00002-of-00002.safetensors": b"\x80\x04K\x01."}, "not in the SafeTensors format"),
    "auto_map": ({"generation_config.json": b'{"a": [{"auto_map": {"AutoModel": "x.Y"}}]}'}, "auto_map"),
    "tokenizer": ({"tokenizer_config.json": b'{"tokenizer_class": "MyTokenizer"}'}, "MyTokenizer"),
}


def test_when_a_champion_is_refused_the_old_one_stays_in_service(gateway: Gateway) -> None:
    store = gateway.store
    first = gateway.serve(gateway.model(), 1)
    for version, (extra, words) in enumerate(REFUSED.values(), start=2):
        entry = deployment_of(gateway.model(extra=extra), "toy", version)
        with pytest.raises(ServingError, match=words):
            deploy(entry, store, gateway.url, gateway.key, timeout_seconds=120)
        assert read_record(store).stable == first
    # Until the gateway has read the restored record, its status contains the engine that was refused.
    wait_for(lambda: gateway.status().engine(entry.model_digest) is None)
    write_record(store, DeploymentRecord(stable=entry))  # nobody restores the record now
    wait_for(lambda: (found := gateway.status().engine(entry.model_digest)) and found.state == "failed")
    refused = gateway.status().engine(entry.model_digest)
    assert refused and "MyTokenizer" in (refused.reason or "") and refused.starts == 0
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    assert gateway.engine().starts == 1


def test_a_fixed_model_is_retried_at_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "INITIAL_BACKOFF_SECONDS", 600.0)
    store, model = gateway.store, gateway.model()
    stray = store.local_path(model.folder) / "weights" / "modeling.py"
    stray.write_text("import os")
    with pytest.raises(ServingError, match=r"modeling\.py: \.py files are refused"):
        deploy(deployment_of(model, "toy", 1), store, gateway.url, gateway.key, timeout_seconds=120)
    stray.unlink()  # deploying it again retries at once, whatever the back-off
    deploy(deployment_of(model, "toy", 1), store, gateway.url, gateway.key, timeout_seconds=120)
