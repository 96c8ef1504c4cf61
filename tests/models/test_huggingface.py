"""Folders of stock Hugging Face models, written and read: compared with transformers, and refused where invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.decoder import Decoder
from models.huggingface import (
    WEIGHTS,
    WEIGHTS_INDEX,
    architecture,
    load_decoder,
    load_folder,
    load_weights,
    save_weights,
    to_config,
)
from models.rope import RopeScaling
from tests.models.small import EOS, randomize, small_decoder, small_shape

SCALINGS = (
    None,
    RopeScaling("linear", 4.0),
    RopeScaling("yarn", 4.0, 16),
    RopeScaling("yarn", 2.0, 32, attention_factor=0.9, beta_fast=8.0, beta_slow=2.0),
    RopeScaling("llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=3.0),
)


def _documents() -> list[Tensor]:
    documents = [torch.randint(4, 96, (length,)) for length in (7, 1, 20, 12)]
    for document in documents[:-1]:
        document[-1] = EOS
    return documents


def _same_logits(ours: Decoder, stock: nn.Module) -> None:
    """Packed in one row, documents have the logits that each has alone in transformers."""
    documents = _documents()
    found = ours(torch.cat(documents)[None]).split([len(d) for d in documents], dim=1)
    for document, logits in zip(documents, found, strict=True):
        torch.testing.assert_close(logits, stock(document[None]).logits, atol=1e-4, rtol=0)
    assert found[2].std() > 0.1


shapes = [
    pytest.param(tied, qk_norm, scaling, id=f"{'qwen3' if qk_norm else 'llama'}-{scaling and scaling.rope_type}-{tied}")
    for tied, qk_norm, scaling in [
        *((tied, qk_norm, None) for tied in (True, False) for qk_norm in (True, False)),
        *((True, number % 2 == 0, scaling) for number, scaling in enumerate(SCALINGS[1:])),
    ]
]


@pytest.mark.parametrize(("tied", "qk_norm", "scaling"), shapes)
def test_exported_it_has_the_logits_of_stock_transformers(tied, qk_norm, scaling, tmp_path):
    from transformers import AutoModelForCausalLM

    model = small_decoder(tied, qk_norm=qk_norm, rope_scaling=scaling)
    save_weights(dict(model.named_parameters()), tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(to_config(model.config, EOS)))
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(stock).__name__ == architecture(model.config) == ("Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM")
    _same_logits(model, stock)


@pytest.mark.parametrize(("tied", "qk_norm", "scaling"), shapes)
def test_imported_it_has_the_logits_of_stock_transformers(tied, qk_norm, scaling, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    wanted = to_config(small_shape(tied, qk_norm=qk_norm, rope_scaling=scaling), EOS)
    kind = wanted.pop("model_type")
    stock = randomize(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **wanted)))
    stock.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    ours = load_folder(tmp_path)
    assert ours.config == small_shape(tied, qk_norm=qk_norm, rope_scaling=scaling) and ours.eos_id == EOS
    _same_logits(ours, stock)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_decoder_is_restored(tied, tmp_path):
    model = small_decoder(tied)
    save_weights(dict(model.named_parameters()), tmp_path / "w.safetensors")
    restored = load_decoder(to_config(model.config, EOS), load_weights(tmp_path / "w.safetensors"))
    assert restored.config == model.config and restored.eos_id == EOS
    tokens = torch.randint(0, 96, (2, 9))
    assert torch.equal(restored(tokens), model(tokens))


def _folder(tmp_path: Path, **changes: Any) -> Path:
    tmp_path.mkdir(exist_ok=True)
    model = small_decoder(True)
    save_weights(dict(model.named_parameters()), tmp_path / WEIGHTS)
    (tmp_path / "config.json").write_text(json.dumps(to_config(model.config, EOS) | changes))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["MistralForCausalLM"]},
            r"architectures is \['MistralForCausalLM'\]; only Qwen3ForCausalLM and",
        ),
        ({"architectures": None}, "architectures is"),
        ({"attention_bias": True}, "attention_bias is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"eos_token_id": None}, "eos_token_id is None; must be a token id below vocab_size"),
        ({"eos_token_id": [96, 2]}, "eos_token_id"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported; use one of linear"),
        ({"rope_parameters": {"rope_type": "linear"}}, "no factor for rope_type 'linear'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor is 0.5"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn needs original_max_position_embeddings"),
        ({"num_key_value_heads": 3}, "must be a multiple of key_value_heads"),
        ({"num_hidden_layers": 3}, r"model.layers.2\S+ is missing.* \(and 8 more\)"),
        ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is not a tensor of this model"),
        ({"intermediate_size": 40}, r"mlp.down_proj.weight has shape \[32, 48\], not \[32, 40\]"),
        ({"architectures": ["LlamaForCausalLM"]}, "k_norm.weight is not a tensor of this model"),
    ],
)
def test_other_models_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_folder(_folder(tmp_path, **changes))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = _folder(tmp_path)
    weights = load_weights(folder / WEIGHTS)
    weights["model.norm.weight"][3] = float("nan")
    save_weights(weights, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"model.norm.weight holds values that are not finite"):
        load_folder(folder)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    folder = _folder(tmp_path)
    for content, message in ((b"no", "model.safetensors is damaged"), (None, "has no model.safetensors")):
        (folder / WEIGHTS).unlink()
        if content:
            (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_folder(folder)
    for text, message in (("[1]", "config.json is not a JSON object"), ("{", "config.json cannot be read")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_folder(folder)


def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path):
    folder = _folder(tmp_path / "inside")
    save_weights(load_weights(folder / WEIGHTS), tmp_path / "outside.safetensors")
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": "../outside.safetensors"}}))
    with pytest.raises(ValueError, match=r"has no \.\./outside\.safetensors"):
        load_folder(folder)
