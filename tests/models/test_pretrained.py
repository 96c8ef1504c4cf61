"""Weights of a Hugging Face folder: read by rows, and refused where they are not those of its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.huggingface import WEIGHTS, WEIGHTS_INDEX
from models.pretrained import EMBEDDING, HEAD, PretrainedWeights, load_folder
from tests.models.small import save_decoder, save_weights, small_decoder


def _folder(folder: Path, tied: bool = True, **changes: Any) -> Path:
    return save_decoder(small_decoder(tied), folder, **changes)


def _change(folder: Path, **changes: Tensor | None) -> Path:
    weights = load_file(folder / WEIGHTS) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_weights({name: tensor for name, tensor in weights.items() if tensor is not None}, folder / WEIGHTS)
    return folder


def test_rows_are_those_of_the_whole_tensor(tmp_path: Path):
    whole = load_file(_folder(tmp_path) / WEIGHTS)
    with PretrainedWeights(tmp_path) as weights:
        assert weights.names == sorted(whole)
        for name, tensor in whole.items():
            assert weights.shape(name) == tensor.shape and weights.dtype(name) == "F32"
            half = len(tensor) // 2
            assert torch.equal(torch.cat([weights.rows(name, 0, half), weights.rows(name, half, len(tensor))]), tensor)
            assert not weights.rows(name, half, half).numel(), "a rank may hold none"
            assert torch.equal(torch.cat([*weights.chunks(name)]), tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_read(dtype: torch.dtype, tmp_path: Path):
    folder = _folder(tmp_path)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_weights(weights, folder / WEIGHTS)
    found = dict(load_folder(folder).named_parameters())
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, r"model.layers.2\S+ is missing.* \(and 8 more\)"),
        ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is not a tensor of this model"),
        ({"intermediate_size": 40}, r"mlp.down_proj.weight has shape \[32, 48\], not \[32, 40\]"),
        ({"architectures": ["LlamaForCausalLM"]}, "k_norm.weight is not a tensor of this model"),
        ({"vocab_size": 128}, r"model.embed_tokens.weight has shape \[96, 32\], not \[128, 32\]"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ],
)
def test_weights_of_another_shape_are_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        load_folder(_folder(tmp_path, **changes))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    norm = torch.ones(32)
    for value in (float("nan"), float("inf")):
        norm[3] = value
        with pytest.raises(ValueError, match=r"model.norm.weight holds values that are not finite"):
            load_folder(_change(_folder(tmp_path), model__norm__weight=norm))


def test_numbers_of_another_format_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"model.norm.weight holds I32 numbers, not F32, BF16, F16"):
        load_folder(_change(_folder(tmp_path), model__norm__weight=torch.ones(32, dtype=torch.int32)))


def test_a_tied_head_that_is_stored_too_has_to_be_equal(tmp_path: Path):
    folder = _folder(tmp_path)
    embedding = load_file(folder / WEIGHTS)[EMBEDDING]
    _change(folder, lm_head__weight=embedding)
    assert torch.equal(load_folder(folder).model.embed_tokens.weight, embedding)
    for other in (embedding + 1e-6, embedding[:90]):
        with pytest.raises(ValueError, match=r"tie_word_embeddings, but lm_head.weight and .* differ"):
            load_folder(_change(folder, **{HEAD.replace(".", "__"): other}))


def test_frequencies_that_old_exports_hold_are_left_out(tmp_path: Path):
    folder = _folder(tmp_path)
    save_weights(
        load_file(folder / WEIGHTS) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, folder / WEIGHTS
    )
    assert "rotary_emb" not in "".join(name for name, _ in load_folder(folder).named_parameters())


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path):
    folder = _folder(tmp_path)
    for content, message in ((b"no", "model.safetensors is damaged"), (None, "has no model.safetensors; only Safe")):
        (folder / WEIGHTS).unlink()
        if content:
            (folder / WEIGHTS).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_folder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is a pickle, which can run code and is not read"):
        load_folder(folder)
    for text, message in (("[1]", "config.json is not a JSON object"), ("{", "config.json cannot be read")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_folder(folder)


@pytest.mark.parametrize("length", [4, 100, 2000])
def test_a_file_that_was_cut_short_is_refused(length: int, tmp_path: Path):
    folder = _folder(tmp_path)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(length)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        load_folder(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "", ".."])
def test_an_index_that_points_out_of_its_folder_is_refused(name: str, tmp_path: Path):
    folder = _folder(tmp_path / "inside")
    save_weights(load_file(folder / WEIGHTS), tmp_path / "outside.safetensors")
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ValueError, match="has no "):
        load_folder(folder)


def test_an_index_without_a_map_is_refused(tmp_path: Path):
    folder = _folder(tmp_path)
    for content in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        (folder / WEIGHTS_INDEX).write_text(json.dumps(content))
        with pytest.raises(ValueError, match="has no weight_map"):
            load_folder(folder)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path):
    folder = _folder(tmp_path)
    (folder / "second.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    names = {"model.norm.weight": WEIGHTS, "model.embed_tokens.weight": "second.safetensors"}
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match="is in two files"):
        load_folder(folder)
