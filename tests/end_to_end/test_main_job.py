"""The main job: raw documents in, a served and registered model out."""

from __future__ import annotations

import json
import math
import re
import stat
import statistics
from pathlib import Path

import httpx
import psutil
import pytest
import torch
from mlflow import MlflowClient

from serving.client import gateway_status
from tests.end_to_end.house import House
from tests.serving.gateways import wait_for
from tests.support import REPOSITORY

STAGES = ["sample", "corpus", "tokens", "training", "model", "register", "evaluation", "verdict", "serving"]


def test_every_stage_was_built_once(house: House) -> None:
    assert [row["stage"] for row in house.summary["stages"]] == STAGES
    assert all(row["state"] in ("built", "done") for row in house.summary["stages"])
    assert house.summary["accepted"], house.summary["reasons"]
    assert len(house.summary["loss"]) == 40
    assert house.summary["loss"][-1] < house.summary["loss"][0]


def test_documents_add_up_in_the_printed_table(house: House) -> None:
    total = house.summary["corpus"][-1]
    assert total["source"] == "total"
    other = ("source", "in", "kept", "bytes_in", "bytes_kept", "characters_kept")
    gone = sum(value for key, value in total.items() if key not in other)
    assert total["in"] == total["kept"] + gone
    assert total["policy"] > 0, "the denied forum"


def test_the_endpoint_gives_a_real_completion(house: House) -> None:
    completions = house.summary["completions"]
    assert len(completions) == 2
    assert all(completion["text"].strip() for completion in completions)
    answer = httpx.post(
        f"{house.gateway}/v1/completions",
        headers=house.key_header,
        json={"model": "biomed", "prompt": completions[0]["prompt"], "max_tokens": 48, "temperature": 0},
        timeout=300,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == completions[0]["text"]


def test_the_endpoint_wants_the_key_which_only_its_owner_can_read(house: House) -> None:
    assert httpx.get(f"{house.gateway}/v1/models").status_code == 401
    path = house.folder / "home" / "api-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in house.first_output and house.key not in house.first_output, "it is no terminal"


def test_served_log_probabilities_are_those_of_stock_transformers(house: House) -> None:
    """Two libraries that are not ours agree on our weights: what vLLM serves of them is what transformers computes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = house.summary["addresses"]["weights"]
    tokenizer = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.bfloat16)
    prompt = "Question: Which gene is altered in cystic fibrosis?\nAnswer: the CFTR gene."
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    reference = torch.log_softmax(logits, -1)
    answer = httpx.post(
        f"{house.gateway}/v1/completions",
        headers=house.key_header,
        json={"model": "biomed", "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1},
        timeout=300,
    ).json()
    served = answer["choices"][0]["logprobs"]["token_logprobs"][1 : ids.shape[1]]
    expected = [reference[i, token].item() for i, token in enumerate(ids[0, 1:].tolist())]
    # Both compute in bf16, in different orders, so that a logit may come out a step of bf16 (8 bits of significand)
    # beside the other's, and a log-probability is the difference of two of them. Most agree far better.
    step = 2.0 ** (math.floor(math.log2(float(logits.abs().max()))) - 7)
    assert served == pytest.approx(expected, abs=2 * step)
    assert statistics.mean(abs(a - b) for a, b in zip(served, expected, strict=True)) < step / 4


def test_served_answers_are_streamed_and_a_chat_without_a_template_is_refused(house: House) -> None:
    with httpx.Client(base_url=house.gateway, headers=house.key_header, timeout=300) as client:
        body = {"model": "biomed", "prompt": "Aspirin", "max_tokens": 8, "stream": True, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json=body) as events:
            lines = [line for line in events.iter_lines() if line]
        assert lines[-1] == "data: [DONE]" and len(lines) > 4
        body = {"model": "biomed", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).json()["error"]["code"] == "no_chat_template"


def test_an_engine_whose_core_dies_is_replaced_from_a_warm_start(house: House) -> None:
    """vLLM's core dies behind its server: clients get 503 with Retry-After, and the spare interpreter takes over."""
    completion = house.summary["completions"][0]
    body = {"model": "biomed", "prompt": completion["prompt"], "max_tokens": 48, "temperature": 0}
    wait_for(lambda: gateway_status(house.gateway, house.key).warm_ready, 300)
    engine = gateway_status(house.gateway, house.key).engines[0]
    assert engine.warm
    gateway = psutil.Process(json.loads((house.folder / "home/services/gateway.json").read_text())["pid"])
    core = next(p for p in gateway.children(recursive=True) if "EngineCore" in " ".join(p.cmdline()))
    core.kill()
    with httpx.Client(base_url=house.gateway, headers=house.key_header, timeout=300) as client:
        down = client.post("/v1/completions", json=body)
        assert down.status_code == 503 and int(down.headers["Retry-After"]) >= 1, down.text
        starts = engine.starts + 1
        wait_for(
            lambda: (now := gateway_status(house.gateway, house.key)).serving and now.engines[0].starts == starts, 300
        )
        assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] == completion["text"]


def test_a_second_run_skips_everything(house: House) -> None:
    """The README's command a second time, set-up included, with its output."""
    settings = " ".join(house.overrides)
    result = house.command(["make", "biomed", f"SET={settings}"], cwd=REPOSITORY)
    for stage in ("sample", "corpus", "tokens", "training", "model", "evaluation"):
        assert re.search(rf"{stage}\s+cached", result.stderr), result.stderr
    assert "Completion" in result.stdout
    assert "Evaluation" in result.stdout
    assert house.gateway in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_dry_run_shows_what_is_cached_and_what_a_change_touches(house: House) -> None:
    def states(*more: str) -> dict[str, str]:
        arguments = [f"--set={item}" for item in [*house.overrides, *more]]
        rows = json.loads(house.ask("run", "biomed", "--dry-run", "--json", *arguments))
        return {row["stage"]: row["state"] for row in rows}

    unchanged = states()
    assert set(unchanged.values()) <= {"cached", "cached: it is the champion"}
    changed = states("training.optimizer.lr=0.001")
    assert [changed[stage] for stage in ("sample", "corpus", "tokens")] == ["cached"] * 3
    assert changed["training"] == "would run"
    assert changed["model"] == "would run after training"
    assert states("training.checkpoint.every_steps=7") == unchanged, "a run-time setting changes no fingerprint"


def test_mlflow_has_curves_version_metrics_and_data(house: House) -> None:
    client = MlflowClient(house.mlflow_url)
    version = client.get_model_version_by_alias("biomed", "champion")
    assert version.tags["headwater.verdict"] == "accepted"
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(version.run_id, "loss")
    steps = [metric.step for metric in losses]
    assert steps == sorted(set(steps)), "no step twice"
    assert {"tokens_per_second", "heldout_bits_per_byte", "evaluation/bits_per_byte"} <= set(run.data.metrics)
    assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"corpus", "tokens"}
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    measured = {metric.key: metric for metric in logged.metrics}
    assert measured["evaluation/medqa_synthetic/accuracy_cloze"].dataset_digest


def test_lineage_goes_back_to_the_source_files(house: House) -> None:
    tree = json.loads(house.ask("lineage", "biomed/champion", "--json"))
    kinds, roles = set(), set()

    def walk(node: dict) -> None:
        kinds.add(node["kind"])
        roles.add(node.get("role"))
        for item in node.get("inputs", []):
            walk(item)

    walk(tree)
    assert {"model", "training", "tokens", "corpus", "files"} <= kinds
    assert "source/synthetic_notes" in roles
    shown = house.ask("lineage", "biomed/champion")
    assert tree["digest"][:12] in shown


def test_status_shows_services_and_what_is_served(house: House) -> None:
    status = json.loads(house.ask("status", "--json"))
    assert all(row["running"] and row["healthy"] for row in status["services"]), status["services"]
    assert status["served"]["name"] == "biomed"
    assert status["refs"]["biomed/champion"] == status["served"]["model_digest"]


def test_weights_are_stock_hugging_face_without_code(house: House) -> None:
    weights = Path(house.summary["addresses"]["weights"])
    config = json.loads((weights / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config
    assert {path.suffix for path in weights.iterdir()} <= {".json", ".safetensors"}
