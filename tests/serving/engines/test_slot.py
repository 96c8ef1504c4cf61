"""An engine that is killed, crashes or hangs is restarted, and clients get 503 with Retry-After."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest

from serving.config import EngineConfig, GatewaySettings, ServingConfig
from serving.engines import slot as slots
from serving.engines.change_condition import ChangeCondition
from serving.engines.in_flight import InFlightRequests
from serving.engines.slot import EngineSlot
from serving.record import DeploymentRecord, deployment_of, write_record
from stages.store import Store
from tests.serving.gateways import Gateway, ask, fake_model, unavailable, wait_for
from tests.support import alive


@pytest.mark.skipif(sys.platform != "linux", reason="orphans not tested: only Linux has child subreapers")
@pytest.mark.parametrize("victim", ["engine", "supervisor"])
def test_a_killed_engine_is_restarted(gateway: Gateway, victim: str) -> None:
    gateway.serve(gateway.model(), 1)
    before = gateway.engine_processes()
    pid = gateway.engine_pid() if victim == "engine" else next(p.pid for p in before if "supervise" in p.cmdline()[1])
    answers: list[httpx.Response] = []
    with gateway.client() as client:
        waiting = [threading.Thread(target=lambda: answers.append(ask(client, "sleep 60"))) for _ in range(2)]
        for thread in waiting:
            thread.start()
        wait_for(lambda: gateway.engine().in_flight == 2)
        os.kill(pid, signal.SIGKILL)
        for thread in waiting:
            thread.join(20)
        assert len(answers) == 2 and all(unavailable(answer) for answer in answers)

        wait_for(lambda: gateway.engine().state == "failed")  # during the first back-off, of 1 s
        assert unavailable(ask(client, "hello")) and unavailable(client.get("/v1/models"))
        assert client.get("/health").status_code == 503
        down = gateway.engine()
        assert "SIGKILL" in (down.reason or "") and down.ready_in is not None and gateway.status().serving is None

        wait_for(lambda: gateway.status().serving)
        assert ask(client, "hello").status_code == 200
        assert not alive(before)
        restarted = gateway.engine()
        assert (restarted.starts, restarted.failures, restarted.reason) == (2, 1, None)
        assert "SIGKILL" in (restarted.last_failure or "") and restarted.last_failure_at


def test_a_crashing_engine_is_restarted_with_back_off(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "INITIAL_BACKOFF_SECONDS", 0.5)
    crashing = deployment_of(gateway.model(crashing=True), "toy", 1)
    write_record(gateway.store, DeploymentRecord(stable=crashing))
    wait_for(lambda: gateway.status().engines and gateway.engine().failures == 2)
    seen = gateway.engine()
    assert seen.starts == 2 and "the engine failed at its first" in (seen.last_failure or "")
    with gateway.client() as client:
        assert unavailable(ask(client, "hello"))


def test_back_off_doubles_up_to_its_maximum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "INITIAL_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(slots, "MAX_BACKOFF_SECONDS", 0.006)
    waits: list[float] = []
    missing = deployment_of(fake_model(Store(tmp_path / "other"), "a"), "toy", 1)

    class Recorded(EngineSlot):
        def _record_failure(self, reason: str, backoff: float) -> None:
            waits.append(backoff)
            super()._record_failure(reason, backoff)
            if len(waits) == 5:
                self.retry()  # as when the record is written again

    async def fail_seven_times() -> None:
        settings = GatewaySettings(store=str(tmp_path / "store"), state_folder=tmp_path / "state")
        slot = Recorded(missing, settings, Store(tmp_path / "store"), InFlightRequests(), ChangeCondition())
        slot.open()
        while slot.failures < 7:
            await asyncio.sleep(0.001)
        await slot.close()
        assert "no model artifact" in (slot.last_failure or "")

    asyncio.run(fail_seven_times())
    assert waits[:7] == [0.001, 0.002, 0.004, 0.006, 0.006, 0.001, 0.002]


@pytest.mark.parametrize("hang", ["core", "server", "reports it"])
def test_an_engine_that_hangs_is_killed_and_restarted(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, hang: str
) -> None:
    monkeypatch.setattr(slots, "INITIAL_BACKOFF_SECONDS", 0.1)
    quick = ServingConfig(engine=EngineConfig(stop_grace_seconds=0.2, hang_timeout_seconds=0.8))
    gateway.serve(gateway.model(), 1, quick)
    with gateway.client() as client:
        if hang == "core":
            assert unavailable(ask(client, "hang"))  # answered as soon as the engine is killed
        elif hang == "server":
            os.kill(gateway.engine_pid(), signal.SIGSTOP)
            assert unavailable(ask(client, "hello"))
        else:
            assert unavailable(ask(client, "dead"))
        wait_for(lambda: gateway.status().serving and gateway.engine().starts == 2)
        words = {"core": "computed nothing", "server": "health checks", "reports it": "reports that it is dead"}[hang]
        assert words in (gateway.engine().last_failure or "")
        assert ask(client, "hello").status_code == 200
