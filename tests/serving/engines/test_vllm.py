"""One real engine: it answers as transformers does, after a warm start, and ends with its gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from serving.client import complete
from serving.deploy import deploy
from serving.record import deployment_of
from stages.store import Store
from tests.serving.gateways import GatewayProcess, gateway_process, put_model, wait_for
from tests.support import EOS, alive, byte_level_tokenizer

TOLERANCE = 0.02
"""In nats; both compute in bf16, in different orders."""
TEXT = "metformin 42 lowers blood glucose in type 2 diabetes and the dose is 850 mg"


def tiny_model(folder: Path) -> Path:
    """A random Qwen3 of 2 layers with a byte-level tokenizer of 512 tokens."""
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # takes 5 s, only for this test

    tokenizer = byte_level_tokenizer([TEXT.replace("42", str(n)) for n in range(500)], 512)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.05,  # larger logits would be coarser in bf16 than the tolerance
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def gateway(serve_python: Path, store: Store, tmp_path: Path) -> Iterator[GatewayProcess]:
    with gateway_process(store, tmp_path / "state", "--warm", "--engine-python", str(serve_python)) as found:
        yield found


@pytest.mark.full
def test_vllm_answers_as_transformers_does(gateway: GatewayProcess, store: Store, tmp_path: Path) -> None:
    """Only the real engine can show that it accepts our arguments and a warm start, that its probabilities are those of
    the model, and that its own processes are found when its core dies and when the gateway is killed.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_model(tmp_path / "hf")
    model = put_model(store, "tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
    entry = deployment_of(model, "tiny", 3)
    status = deploy(entry, store, gateway.url, gateway.key, timeout_seconds=300)
    engine = status.engine(model.digest)
    assert engine and engine.warm and engine.starts == 1

    with gateway.client(timeout=300.0) as client:
        request = {"model": "tiny@3", "prompt": TEXT, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0}
        answer = client.post("/v1/completions", json=request)
        assert answer.status_code == 200, answer.text
        found = answer.json()["choices"][0]["logprobs"]
        stream = {
            "model": "tiny",
            "prompt": TEXT,
            "max_tokens": 8,
            "stream": True,
            "temperature": 0,
            "ignore_eos": True,
        }
        with client.stream("POST", "/v1/completions", json=stream) as events:
            lines = [line for line in events.iter_lines() if line]
        assert lines[-1] == "data: [DONE]" and len(lines) > 4
        chat = client.post(
            "/v1/chat/completions", json={"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        )
        assert chat.json()["error"]["code"] == "no_chat_template"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        logs = torch.log_softmax(reference(ids).logits[0].float(), -1)
    expected = logs[:-1].gather(1, ids[0, 1:, None])[:, 0]
    assert found["token_logprobs"][0] is None and len(found["token_logprobs"]) == ids.shape[1]
    assert expected.std() > 0.2  # else equality would mean nothing
    assert torch.tensor(found["token_logprobs"][1:]) == pytest.approx(expected, abs=TOLERANCE)
    best = tokenizer.decode(logs[-1].argmax())
    assert complete(gateway.url, gateway.key, "tiny", TEXT, max_tokens=1) == best

    # The core dies behind the server: clients get 503 with Retry-After, and the warm interpreter takes over.
    wait_for(lambda: gateway.status().warm_ready, 60)
    core = next(p for p in gateway.engine_processes() if "EngineCore" in " ".join(p.cmdline()))
    core.kill()
    with gateway.client(timeout=300.0) as client:
        down = client.post("/v1/completions", json={"model": "tiny", "prompt": TEXT})
    assert down.status_code == 503 and int(down.headers["Retry-After"]) >= 1, down.text
    wait_for(lambda: (found := gateway.status()).serving and found.engines[0].starts == 2, 300)
    assert complete(gateway.url, gateway.key, "tiny", TEXT, max_tokens=1) == best

    below = gateway.engine_processes()
    assert any("EngineCore" in " ".join(p.cmdline()) for p in below)
    gateway.process.kill()
    gateway.process.wait()
    wait_for(lambda: not alive(below), 30)
