"""The decoder against stock transformers, documents against themselves alone, sizes against real counts."""

from __future__ import annotations

import json
import math

import pytest
import torch

from models.decoder import Decoder
from models.huggingface import from_config, load_decoder, load_weights, save_weights, to_config
from models.initialize import initialize
from models.sizes import SIZES, ModelConfig, parameters, sized, training_flops

EOS = 3


def _shape(tied: bool) -> ModelConfig:
    return ModelConfig(96, 32, 2, 4, 2, 16, 48, tied=tied, context=64, rope_theta=5_000.0)


def _decoder(tied: bool) -> Decoder:
    """With every parameter random: the usual initial values would hide a missing projection."""
    torch.manual_seed(1)
    model = Decoder(_shape(tied), EOS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_packed_documents_have_the_logits_of_stock_transformers(tied, tmp_path):
    from transformers import AutoModelForCausalLM

    model = _decoder(tied)
    save_weights(dict(model.named_parameters()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(to_config(model.config, EOS)))
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(stock).__name__ == "Qwen3ForCausalLM"
    documents = [torch.randint(4, 96, (length,)) for length in (7, 1, 20, 12)]
    for document in documents[:-1]:
        document[-1] = EOS
    ours = model(torch.cat(documents)[None]).split([len(d) for d in documents], dim=1)
    for document, logits in zip(documents, ours, strict=True):
        torch.testing.assert_close(logits, stock(document[None]).logits, atol=1e-4, rtol=0)
    assert ours[2].std() > 0.1


@pytest.mark.parametrize("tied", [True, False])
def test_saved_decoder_comes_back(tied, tmp_path):
    model = _decoder(tied)
    save_weights(dict(model.named_parameters()), tmp_path / "w.safetensors")
    again = load_decoder(to_config(model.config, EOS), load_weights(tmp_path / "w.safetensors"))
    assert again.config == model.config and again.eos_id == EOS
    tokens = torch.randint(0, 96, (2, 9))
    assert torch.equal(again(tokens), model(tokens))


def test_other_architectures_are_refused():
    with pytest.raises(ValueError, match="LlamaForCausalLM"):
        from_config({"architectures": ["LlamaForCausalLM"]})


@pytest.mark.parametrize("tied", [True, False])
def test_loss_is_that_of_the_logits(tied):
    model = _decoder(tied)
    tokens = torch.randint(0, 96, (3, 11))
    targets = torch.randint(0, 96, (3, 11))
    targets[:, ::3] = -100
    loss, nats = model(tokens, targets, scale=0.5)
    expected = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(loss, expected / 2, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(nats.sum(), expected.detach(), atol=1e-3, rtol=1e-5)


def test_a_new_model_knows_nothing():
    model = Decoder(sized("1m", 4096, 64), EOS)
    initialize(model, seed=0)
    tokens = torch.randint(4, 4096, (4, 64))
    _, nats = model(tokens, tokens.roll(-1, 1))
    assert nats.mean().item() == pytest.approx(math.log(4096), abs=0.1)


def test_initial_values_depend_on_the_seed_only():
    first, same, other = (Decoder(_shape(False), EOS) for _ in range(3))
    for model, seed in ((first, 5), (same, 5), (other, 6)):
        torch.manual_seed(id(model) % 1000)
        initialize(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_counted(name):
    config = sized(name, 32_000, 2048)
    with torch.device("meta"):
        model = Decoder(config, EOS)
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    assert config.vocabulary_size % 64 == 0
    assert training_flops(config, 2048) > 6 * (parameters(config) - 2 * 32_000 * config.hidden_size)


def test_sizes_are_what_they_are_called():
    for name in ("1b", "3b", "7b", "13b", "30b", "70b"):
        assert parameters(sized(name, 32_000, 2048)) / 1e9 == pytest.approx(float(name[:-1]), rel=0.06)
    assert all(sized(name, 32_000, 64).tied == (parameters(sized(name, 32_000, 64)) < 350e6) for name in SIZES)


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="no model size '5x'"):
        sized("5x", 100, 10)
