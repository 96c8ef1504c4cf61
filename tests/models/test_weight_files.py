"""Weights written one tensor at a time: stock SafeTensors byte for byte, read by transformers, in little memory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.decoder import Decoder
from models.huggingface import WEIGHTS, WEIGHTS_INDEX, to_config
from models.pretrained import load_folder
from models.weight_files import WeightFile, plan_weight_files, write_weight_file
from tests.models.small import TOKENS, small_decoder

NAMES = ("model.layers.0.weight", "model.layers.10.weight", "Gewicht-ß", "重み", "вес", "a", 'quote"d\\', "🙂")


def _tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = [(3, 5), (7,), (), (0,), (4, 0, 2), (2, 3, 4), (1,), (33, 17)]
    return {name: torch.randn(shape).to(dtype) for name, shape in zip(NAMES, shapes, strict=True)}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _write(tensors: dict[str, Tensor], dtype: str, folder: Path, most: int) -> int:
    """Writes all files as an export does; the most bytes that were held."""
    files, index = plan_weight_files(_shapes(tensors), dtype, most)
    if index is not None:
        (folder / WEIGHTS_INDEX).write_bytes(index)
    return max(write_weight_file(f, _shapes(tensors), dtype, tensors.__getitem__, folder / f.name) for f in files)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_bytes_are_those_of_safetensors(dtype: str, tmp_path: Path):
    tensors = _tensors()
    _write(tensors, dtype, tmp_path, 1 << 40)
    stock = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    save_file(stock, tmp_path / "stock", metadata={"format": "pt"})
    assert (tmp_path / WEIGHTS).read_bytes() == (tmp_path / "stock").read_bytes()
    read = load_file(tmp_path / WEIGHTS)
    assert all(torch.equal(read[name], tensor) for name, tensor in stock.items())


def test_transposed_tensors_are_written_in_row_major_order(tmp_path: Path):
    tensor = torch.arange(12.0).view(3, 4).T
    _write({"a": tensor}, "float32", tmp_path, 1 << 40)
    assert torch.equal(load_file(tmp_path / WEIGHTS)["a"], tensor)


@pytest.mark.parametrize("tied", [True, False])
def test_several_files_load_in_transformers_and_here(tied: bool, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    model: Decoder = small_decoder(tied)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    (tmp_path / "config.json").write_text(json.dumps(to_config(model.config, TOKENS)))
    _write(weights, "float32", tmp_path, 20_000)
    index = json.loads((tmp_path / WEIGHTS_INDEX).read_bytes())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files == sorted(set(index["weight_map"].values()))
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(4 * tensor.numel() for tensor in weights.values())
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, trust_remote_code=False)
    found = dict(stock.named_parameters())
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    ours = dict(load_folder(tmp_path).named_parameters())
    assert all(torch.equal(ours[name], tensor) for name, tensor in weights.items())


def test_files_are_cut_between_tensors_and_a_large_tensor_has_its_own():
    shapes = {"a": (10,), "b": (10,), "c": (100,), "d": (10,), "e": (0,)}
    files, index = plan_weight_files(shapes, "float32", 80)
    assert [file.tensors for file in files] == [("a", "b"), ("c",), ("d", "e")]
    assert index is not None and json.loads(index)["weight_map"]["c"] == files[1].name
    assert plan_weight_files(shapes, "bfloat16", 280) == ([WeightFile(WEIGHTS, tuple("abcde"))], None)


@pytest.mark.parametrize(("dtype", "bytes_a_number"), [("float32", 4), ("bfloat16", 6)])
def test_one_tensor_is_held_at_a_time(dtype: str, bytes_a_number: int, tmp_path: Path):
    tensors = {f"{number}": torch.randn(50, 10 + number) for number in range(20)}
    assert _write(tensors, dtype, tmp_path, 5_000) == bytes_a_number * 50 * 29


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel's own: every write to /dev/full finds the disk full."""
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: real("/dev/full", os.O_WRONLY))
    with pytest.raises(OSError, match="No space left") as caught:
        _write(_tensors(), "float32", tmp_path, 1 << 40)
    assert caught.value.errno == errno.ENOSPC


def test_a_file_that_exists_is_not_replaced(tmp_path: Path):
    (tmp_path / WEIGHTS).write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        _write(_tensors(), "float32", tmp_path, 1 << 40)
    assert (tmp_path / WEIGHTS).read_bytes() == b"mine"
