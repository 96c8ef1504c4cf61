"""A decoder as `config.json` and back: computed as transformers computes it, and refused where it would not be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from models.decoder import Decoder
from models.huggingface import _CLASSES, SpecialTokens, from_config, to_config
from models.pretrained import load_folder
from models.rope import RopeScaling
from models.sizes import Architecture, parameters
from tests.models.small import EOS, TOKENS, randomize, save_decoder, small_decoder, small_shape

ARCHITECTURES = get_args(Architecture)
SCALINGS = (
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
    *((tied, architecture, None) for tied in (True, False) for architecture in ARCHITECTURES),
    *((True, ARCHITECTURES[number], scaling) for number, scaling in enumerate(SCALINGS)),
]


@pytest.mark.parametrize(("tied", "architecture", "scaling"), shapes)
def test_exported_it_has_the_logits_of_stock_transformers(tied, architecture, scaling, tmp_path):
    from transformers import AutoModelForCausalLM

    model = small_decoder(tied, architecture=architecture, rope_scaling=scaling)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(model.config)
    stock = AutoModelForCausalLM.from_pretrained(save_decoder(model, tmp_path), dtype=torch.float32)
    assert type(stock).__name__ == architecture
    _same_logits(model, stock)


@pytest.mark.parametrize(("tied", "architecture", "scaling"), shapes)
def test_imported_it_has_the_logits_of_stock_transformers(tied, architecture, scaling, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = small_shape(tied, architecture=architecture, rope_scaling=scaling)
    wanted = to_config(shape, SpecialTokens((EOS, 7), bos_id=1))
    kind = wanted.pop("model_type")
    stock = randomize(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **wanted)))
    stock.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    saved = json.loads((tmp_path / "config.json").read_bytes())
    assert from_config(saved) == (shape, SpecialTokens((EOS, 7), bos_id=1))
    ours = load_folder(tmp_path)
    assert ours.config == shape and ours.eos_id == EOS
    _same_logits(ours, stock)


def test_gradients_of_biases_are_those_of_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    model = small_decoder(True, architecture="Qwen2ForCausalLM")
    stock = AutoModelForCausalLM.from_pretrained(save_decoder(model, tmp_path), dtype=torch.float32)
    tokens = torch.randint(4, 96, (2, 20))
    model(tokens[:, :-1], tokens[:, 1:], 1 / tokens[:, 1:].numel())[0].backward()
    stock(tokens, labels=tokens).loss.backward()
    theirs = dict(stock.named_parameters())
    biases = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    assert len(biases) == 3 * model.config.layers
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_absent_entry_means_what_it_means_in_transformers(architecture):
    from transformers import AutoConfig

    mine = _CLASSES[architecture]
    own = type(AutoConfig.for_model(mine.model_type))
    defaults = {field.name: field.default for field in dataclasses.fields(own)}
    for name in ("num_key_value_heads", "head_dim", "max_position_embeddings", "sliding_window"):
        if name in mine.absent:
            assert mine.absent[name] == defaults[name], name
        elif name in defaults and name != "sliding_window":  # Qwen's takes effect with use_sliding_window only
            assert defaults[name] is None, name
    assert defaults["tie_word_embeddings"] is False and defaults["rms_norm_eps"] == 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["GemmaForCausalLM"]},
            r"architectures is \['GemmaForCausalLM'\]; one of Qwen3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM, "
            "MistralForCausalLM is supported",
        ),
        ({"architectures": None}, "architectures is"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architectures is"),
        ({"architectures": ["LlamaForCausalLM", "Other"]}, "architectures is"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map: the model needs code of its own"),
        ({"quantization_config": {"bits": 4}}, "its weights are quantized"),
        ({"attention_bias": True}, "attention_bias is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has sliding_attention"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 32}, "sliding_window is 32 of 64 positions"),
        ({"architectures": ["MistralForCausalLM"], "max_position_embeddings": 8192}, "sliding_window is 4096 of 8192"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "head_dim is 16; must be hidden_size / num_attention_heads"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_key_value_heads": "2"}, "num_key_value_heads is '2'"),
        ({"eos_token_id": None}, "eos_token_id is None; must be a token id below vocab_size"),
        ({"eos_token_id": []}, "eos_token_id"),
        ({"eos_token_id": [2, 96]}, "eos_token_id"),
        ({"bos_token_id": 96}, "bos_token_id is 96"),
        ({"pad_token_id": -2}, "pad_token_id is -2"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported; use one of linear"),
        ({"rope_parameters": {"rope_type": "linear"}}, "no factor for rope_type 'linear'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor is 0.5"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "rope_parameters: "),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn needs original_max_position_embeddings"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differ by layer"),
        ({"num_key_value_heads": 3}, "must be a multiple of key_value_heads"),
    ],
)
def test_other_models_are_refused(changes: dict[str, Any], message: str):
    config = to_config(small_shape(True), TOKENS) | changes
    if changes.get("architectures") == ["MistralForCausalLM"] and "sliding_window" not in changes:
        config.pop("sliding_window", None)
    with pytest.raises(ValueError, match=message):
        from_config(config)


def test_a_window_that_reaches_over_all_positions_is_none():
    config = to_config(small_shape(True, architecture="MistralForCausalLM"), TOKENS) | {"sliding_window": 64}
    assert from_config(config)[0] == small_shape(True, architecture="MistralForCausalLM")


def test_minus_one_is_no_padding():
    config = to_config(small_shape(True), TOKENS) | {"pad_token_id": -1}
    assert from_config(config)[1] == SpecialTokens((EOS,))


def test_a_saved_decoder_is_restored(tmp_path: Path):
    for tied in (True, False):
        model = small_decoder(tied)
        restored = load_folder(save_decoder(model, tmp_path / str(tied)))
        assert restored.config == model.config and restored.eos_id == EOS
        tokens = torch.randint(0, 96, (2, 9))
        assert torch.equal(restored(tokens), model(tokens))
