"""What clients see and what the gateway does when an engine dies, hangs, or a champion is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest

from serving import slot as slots
from serving.client import complete, gateway_status
from serving.config import EngineConfig, GatewaySettings, ServingConfig
from serving.deploy import deploy
from serving.errors import ServingError
from serving.record import DeploymentRecord, deployment_of, read_record, write_record
from serving.slot import EngineSlot
from serving.status import EngineStatus
from stages.artifact import Store
from tests.serving.conftest import Gateway, fake_model, wait_for
from tests.support import alive

QUICK = ServingConfig(engine=EngineConfig(stop_grace=0.5, hang_timeout=1.5))
"""An engine that counts as hung after 1.5 s."""


def ask(client: httpx.Client, prompt: str, **fields: object) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "toy", "prompt": prompt, **fields})


def engine(gateway: Gateway) -> EngineStatus:
    return gateway_status(gateway.url).engines[0]


def unavailable(answer: httpx.Response) -> bool:
    """A 503 as OpenAI clients understand it, with a sensible Retry-After."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert (error["type"], error["code"]) == ("server_error", "model_not_ready")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    return answer.status_code == 503


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found through Linux's child subreaper")
@pytest.mark.parametrize("victim", ["engine", "supervisor"])
def test_a_killed_engine_is_started_again(gateway: Gateway, store: Store, victim: str) -> None:
    gateway.serve(fake_model(store, "a"), 1)
    before = gateway.engine_processes()
    pid = gateway.engine_pid() if victim == "engine" else next(p.pid for p in before if "supervise" in p.cmdline()[1])
    answers: list[httpx.Response] = []
    with gateway.client() as client:
        waiting = [
            threading.Thread(target=lambda stream=stream: answers.append(ask(client, "sleep 60", stream=stream)))
            for stream in (False, False)
        ]
        for thread in waiting:
            thread.start()
        wait_for(lambda: engine(gateway).in_flight == 2)
        os.kill(pid, signal.SIGKILL)
        for thread in waiting:
            thread.join(20)
        assert len(answers) == 2 and all(unavailable(answer) for answer in answers)

        wait_for(lambda: engine(gateway).state == "failed")
        assert unavailable(ask(client, "hello")) and unavailable(client.get("/v1/models"))
        assert client.get("/health").status_code == 503
        down = engine(gateway)
        assert (
            "SIGKILL" in (down.reason or "")
            and down.ready_in is not None
            and gateway_status(gateway.url).serving is None
        )

        wait_for(lambda: gateway_status(gateway.url).serving)
        assert ask(client, "hello").status_code == 200
        assert not alive(before)
        again = engine(gateway)
        assert (again.starts, again.failures, again.reason) == (2, 1, None)
        assert "SIGKILL" in (again.last_failure or "") and again.last_failure_at


def test_answers_that_are_cut_stay_well_formed(gateway: Gateway, store: Store) -> None:
    gateway.serve(fake_model(store, "a"), 1)
    with gateway.client() as client:
        error = ask(client, "error")
        assert error.status_code == 502 and error.json()["error"]["code"] == "engine_error"
        assert "secret" not in error.text
        assert ask(client, "hello").status_code == 200 and engine(gateway).starts == 1

        answer = ask(client, "cut", stream=True)
        events = [json.loads(event.removeprefix("data: ")) for event in answer.text.split("\n\n") if event]
        assert [event.get("choices", [{}])[0].get("text") for event in events] == ["0 ", "1 ", None]
        assert events[-1]["error"]["code"] == "model_not_ready"

        wait_for(lambda: gateway_status(gateway.url).serving and engine(gateway).starts == 2)
        assert unavailable(ask(client, "cut"))  # it was cut in the middle of a plain answer


def test_a_crashing_engine_is_started_with_back_off(gateway: Gateway, store: Store) -> None:
    write_record(
        store, DeploymentRecord(stable=deployment_of(fake_model(store, "a", architecture="Crashing"), "toy", 1))
    )
    wait_for(lambda: gateway_status(gateway.url).engines and engine(gateway).failures == 2)
    seen = engine(gateway)
    assert seen.starts == 2 and "code 7" in (seen.last_failure or "")
    with gateway.client() as client:
        assert unavailable(ask(client, "hello"))


def test_back_off_doubles_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(slots, "LAST_BACKOFF", 0.006)
    waits: list[float] = []
    missing = deployment_of(fake_model(Store(tmp_path / "other"), "a"), "toy", 1)

    class Owner:
        def may_start(self, slot: EngineSlot) -> bool:
            return True

        def may_retry(self, slot: EngineSlot) -> bool:
            return True

        def take_spare(self) -> None:
            return None

    class Noted(EngineSlot):
        def _failed(self, reason: str, backoff: float) -> None:
            waits.append(backoff)
            super()._failed(reason, backoff)
            if len(waits) == 5:
                self.retry()  # somebody has written the record again

    async def fail_seven_times() -> None:
        settings = GatewaySettings(store=str(tmp_path / "store"), state_folder=tmp_path / "state")
        slot = Noted(missing, settings, Store(tmp_path / "store"), Owner())
        slot.open()
        while slot.failures < 7:
            await asyncio.sleep(0.001)
        await slot.close()
        assert "no model artifact" in (slot.last_failure or "")

    asyncio.run(fail_seven_times())
    assert waits[:7] == [0.001, 0.002, 0.004, 0.006, 0.006, 0.001, 0.002]


@pytest.mark.parametrize("hang", ["core", "server", "says so"])
def test_an_engine_that_hangs_is_killed_and_started_again(gateway: Gateway, store: Store, hang: str) -> None:
    gateway.serve(fake_model(store, "a"), 1, QUICK)
    with gateway.client() as client:
        if hang == "core":
            assert unavailable(ask(client, "hang"))  # told as soon as the engine is given up, never a hang
        elif hang == "server":
            os.kill(gateway.engine_pid(), signal.SIGSTOP)
            assert unavailable(ask(client, "hello"))
        else:
            assert unavailable(ask(client, "dead"))
        wait_for(lambda: gateway_status(gateway.url).serving and engine(gateway).starts == 2)
        words = {"core": "computed nothing", "server": "health checks", "says so": "says that it is dead"}[hang]
        assert words in (engine(gateway).last_failure or "")
        assert ask(client, "hello").status_code == 200


def test_a_busy_engine_is_left_alone(gateway: Gateway, store: Store) -> None:
    gateway.serve(fake_model(store, "a"), 1, QUICK)
    with gateway.client() as client:
        assert ask(client, "busy 2.5").status_code == 200  # even a probe has to wait, but the metrics show steps
        # Its client does not read and nothing else is asked: no step, but probes are answered.
        assert ask(client, "sleep 2.5").status_code == 200
    assert (engine(gateway).starts, engine(gateway).failures) == (1, 0)


REFUSED = {
    "code": ({"modeling_x.py": b"import os"}, r"modeling_x\.py: \.py files are refused"),
    "pickle": ({"pytorch_model.bin": b"\x80\x02}q\x00."}, r"\.bin files are refused"),
    "hidden pickle": ({"model-2.safetensors": b"\x80\x04K\x01."}, "not in the SafeTensors format"),
    "auto_map": ({"generation_config.json": b'{"a": [{"auto_map": {"AutoModel": "x.Y"}}]}'}, "auto_map"),
    "tokenizer": ({"tokenizer_config.json": b'{"tokenizer_class": "MyTokenizer"}'}, "MyTokenizer"),
}


def test_a_refused_champion_leaves_the_old_one_serving(gateway: Gateway, store: Store) -> None:
    first = gateway.serve(fake_model(store, "a"), 1)
    for version, (name, (extra, words)) in enumerate(REFUSED.items(), start=2):
        entry = deployment_of(fake_model(store, name, extra=extra), "toy", version)
        with pytest.raises(ServingError, match=words):
            deploy(entry, store, gateway.url, timeout=120)
        assert read_record(store).stable == first
    # Until the gateway has seen the record put back, it tells of the engine that was refused for the one before.
    wait_for(lambda: gateway_status(gateway.url).engine(entry.model_digest) is None)
    write_record(store, DeploymentRecord(stable=entry))  # and with nobody to put the record back
    wait_for(lambda: (found := gateway_status(gateway.url).engine(entry.model_digest)) and found.state == "failed")
    refused = gateway_status(gateway.url).engine(entry.model_digest)
    assert refused and "MyTokenizer" in (refused.reason or "") and refused.starts == 0
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    assert gateway_status(gateway.url).engines[0].starts == 1


def test_a_mended_model_and_a_damaged_record(gateway: Gateway, store: Store) -> None:
    model = fake_model(store, "a")
    stray = store.local_path(model.folder) / "weights" / "modeling.py"
    stray.write_text("import os")
    with pytest.raises(ServingError, match=r"modeling\.py: \.py files are refused"):
        deploy(deployment_of(model, "toy", 1), store, gateway.url, timeout=120)
    stray.unlink()  # mended and asked for again: tried at once, whatever the back-off was
    deploy(deployment_of(model, "toy", 1), store, gateway.url, timeout=120)

    record = store.local_path("deployments/record.json")
    for break_it, words in (
        (lambda: store.put("deployments/record.json", b"nonsense"), "not a deployment record"),
        (record.unlink, "gone"),
    ):
        break_it()
        wait_for(lambda words=words: words in (gateway_status(gateway.url).record_error or ""))
        assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    write_record(store, DeploymentRecord())
    wait_for(lambda: not gateway_status(gateway.url).engines)
    assert gateway_status(gateway.url).record_error is None
