"""The deployment record."""

import json

import pytest
from pydantic import ValidationError

from serving.config import EngineConfig, LimitsConfig, ServingConfig
from serving.record import RECORD, DeploymentRecord, deployment_of, find_record, read_record, write_record
from stages.store import Store, StoreError
from tests.serving.gateways import fake_model


def test_round_trip(store: Store) -> None:
    assert read_record(store).stable is None and find_record(store) is None
    record = DeploymentRecord(stable=deployment_of(fake_model(store, "a"), "biomed+medquad", 7))
    write_record(store, record)
    assert read_record(store) == record
    assert record.stable and record.stable.names == ("biomed+medquad", "biomed+medquad@7")


def test_an_invalid_record_is_an_error(store: Store) -> None:
    for data in (b"{", b'{"stable": 1}', b'{"unknown": 1}', b'{"weight": 0.5}'):
        store.put(RECORD, data)
        with pytest.raises(StoreError, match="deployment record"):
            read_record(store)


def test_names_cannot_become_options_or_paths(store: Store) -> None:
    model = fake_model(store, "a")
    for name in ("--port", "../x", "a b", ""):
        with pytest.raises(ValidationError):
            deployment_of(model, name, 1)


def test_only_what_needs_another_engine_changes_the_key(store: Store) -> None:
    model, other = fake_model(store, "a"), fake_model(store, "b")
    key = deployment_of(model, "x", 1).key
    limits = ServingConfig(limits=LimitsConfig(max_concurrent=1))
    assert deployment_of(model, "x", "1", limits).key == key
    engine = ServingConfig(engine=EngineConfig(max_model_len=32))
    changed = [deployment_of(model, "x", 2), deployment_of(other, "x", 1), deployment_of(model, "x", 1, engine)]
    assert len({key, *(entry.key for entry in changed)}) == 4


def test_a_record_of_an_earlier_release_is_read_with_its_old_names(store: Store) -> None:
    serving = {"engine": {"tensor_parallel": 2, "hang_timeout": 7.0}, "limits": {"queue_timeout": 3.0}}
    entry = deployment_of(fake_model(store, "a"), "x", 1).model_dump(mode="json") | {"serving": serving}
    store.put(RECORD, json.dumps({"stable": entry}).encode())
    stable = read_record(store).stable
    assert stable and (stable.engine.tensor_parallel_size, stable.engine.hang_timeout_seconds) == (2, 7.0)
    assert stable.serving.limits.queue_timeout_seconds == 3.0
