"""Adapters: their outputs and gradients are those of `peft` on transformers' model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.decoder import Decoder
from models.initialize import initial_value
from models.kernels.library import OFF
from models.lora import TARGET_MODULES, A, B, Lora, add_adapters, is_adapter, layer_adapter_parameters, merge, peft_name
from models.sizes import Architecture
from tests.models.small import EOS, save_decoder, small_decoder, small_shape

LORA = Lora(rank=3, alpha=6.0)
PARTS = Lora(rank=2, alpha=5.0, target_modules=("k_proj", "o_proj", "up_proj"))


def adapted(lora: Lora, dtype: torch.dtype = torch.float32, **others: Any) -> Decoder:
    """A small decoder whose adapters have an effect."""
    model = small_decoder(False, **others)
    model.dtype = dtype
    add_adapters(model, lora)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_(std=0.3)
    return model


def batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(EOS + 1, 96, (2, 24), generator=torch.Generator().manual_seed(3))
    return tokens, tokens.roll(-1, 1)


def gradients(model: Decoder) -> dict[str, Tensor]:
    tokens, targets = batch()
    model(tokens, targets, 1 / targets.numel())[0].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kernels", ["on", "off"])
@pytest.mark.parametrize(
    ("architecture", "lora"), [("Qwen3ForCausalLM", LORA), ("Qwen2ForCausalLM", LORA), ("LlamaForCausalLM", PARTS)]
)
def test_outputs_and_gradients_are_those_of_peft(
    architecture: Architecture, lora: Lora, kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv(OFF, kernels)
    model = adapted(lora, architecture=architecture)
    save_decoder(small_decoder(False, architecture=architecture), tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=[*lora.target_modules])
    theirs = peft.get_peft_model(stock, config)
    ours = {name: p.detach() for name, p in model.named_parameters() if is_adapter(name)}
    peft.set_peft_model_state_dict(theirs, {peft_name(name): tensor for name, tensor in ours.items()})
    tokens, targets = batch()
    logits = theirs(tokens).logits
    torch.testing.assert_close(model(tokens), logits, atol=2e-4, rtol=1e-4)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    found = gradients(model)
    assert {peft_name(name).replace(".weight", ".default.weight") for name in found} == wanted.keys()
    for name, gradient in found.items():
        theirs_grad = wanted[peft_name(name).replace(".weight", ".default.weight")]
        torch.testing.assert_close(gradient, theirs_grad, atol=1e-6, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_every_adapter_has_an_effect_and_none_at_the_start(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, kernels)
    tokens, _ = batch()
    before = small_decoder(False)(tokens)
    for target in TARGET_MODULES:
        model = small_decoder(False)
        add_adapters(model, Lora(2, 4.0, (target,)))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if is_adapter(name):
                    parameter.copy_(initial_value(name, parameter.shape, 0))
        assert torch.equal(model(tokens), before), target
        with torch.no_grad():
            model.model.layers[0].get_submodule(_path(target)).lora_B.weight.fill_(0.5)
        assert (model(tokens) - before).abs().max() > 1e-3, target


def _path(target: str) -> str:
    return f"mlp.{target}" if target in ("gate_proj", "up_proj", "down_proj") else f"self_attn.{target}"


def test_only_adapters_get_gradients() -> None:
    model = adapted(LORA)
    found = gradients(model)
    assert found.keys() == {name for name, _ in model.named_parameters() if is_adapter(name)}
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_a_merged_weight_computes_as_weight_and_adapter_do(tmp_path: Path) -> None:
    model = adapted(LORA)
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    plain = small_decoder(False)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            stem = name.removesuffix(".weight")
            if f"{stem}{A}" in tensors:
                merge(parameter, tensors[f"{stem}{A}"], tensors[f"{stem}{B}"], LORA.scaling)
    tokens, _ = batch()
    torch.testing.assert_close(plain(tokens), model(tokens), atol=1e-4, rtol=1e-4)


def test_bf16_is_near_fp32() -> None:
    exact, rounded = gradients(adapted(LORA)), gradients(adapted(LORA, torch.bfloat16))
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.1 * gradient.norm(), name


@pytest.mark.parametrize("lora", [LORA, PARTS])
def test_the_number_of_parameters(lora: Lora) -> None:
    count = sum(p.numel() for name, p in adapted(lora).named_parameters() if is_adapter(name))
    assert count == 2 * layer_adapter_parameters(small_shape(False), lora)


def test_initial_values_are_peft_s() -> None:
    peft = pytest.importorskip("peft")
    layer = torch.nn.Sequential()
    layer.add_module("q_proj", torch.nn.Linear(4096, 64, bias=False))
    theirs = peft.get_peft_model(layer, peft.LoraConfig(r=16, target_modules=["q_proj"]))
    parts = {name.split(".")[-3]: p for name, p in theirs.named_parameters() if p.requires_grad}
    ours = {part: initial_value(f"x.q_proj.{part}.weight", p.shape, 0) for part, p in parts.items()}
    assert not ours["lora_B"].any() and not parts["lora_B"].any()
    for statistic in (Tensor.std, Tensor.max):
        assert float(statistic(ours["lora_A"])) == pytest.approx(float(statistic(parts["lora_A"].detach())), rel=0.02)
