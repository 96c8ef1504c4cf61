"""Conversion to and from Hugging Face's `Qwen3ForCausalLM` and `LlamaForCausalLM`: config and SafeTensors.

Parameter names are the same on both sides, so a state dict needs no mapping; as in transformers, a tied head is not
stored. Does not import transformers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.rope import RopeScaling
from models.sizes import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from models.decoder import Decoder

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"

QWEN3, LLAMA = "Qwen3ForCausalLM", "LlamaForCausalLM"
_TYPES = {QWEN3: "qwen3", LLAMA: "llama"}
"""`model_type` by architecture."""

_NAMES = {
    "vocabulary_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "intermediate_size": "intermediate_size",
    "tied": "tie_word_embeddings",
    "context": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}
_ROPE_ENTRIES = {
    "linear": (),
    "yarn": ("original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
    "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}
"""Entries of `rope_parameters` besides the factor, by `rope_type`."""
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def architecture(config: ModelConfig) -> str:
    """The class in transformers with this architecture."""
    return QWEN3 if config.qk_norm else LLAMA


def to_config(config: ModelConfig, eos_id: int, dtype: str = "float32") -> dict[str, Any]:
    """The content of `config.json`.

    Rotary settings are written both at top level, for vLLM and transformers 4, and in `rope_parameters`, for
    transformers 5.
    """
    scaling = _rope_entries(config.rope_scaling)
    name = architecture(config)
    return {
        "architectures": [name],
        "model_type": _TYPES[name],
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **(scaling or {})},
        **({"rope_scaling": scaling} if scaling else {}),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        **({"use_sliding_window": False} if name == QWEN3 else {"mlp_bias": False}),
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": eos_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def _rope_entries(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The entries of a scaling that belong to its `rope_type`."""
    if scaling is None:
        return None
    entries = ("rope_type", "factor", *_ROPE_ENTRIES[scaling.rope_type])
    return {name: value for name in entries if (value := getattr(scaling, name)) is not None}


def from_config(config: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """The architecture and EOS id in a `config.json`; of several EOS ids the first.

    Raises:
        ValueError: another architecture, an unsupported feature, or a missing entry.
    """
    names = config.get("architectures") or [None]
    if names[0] not in _TYPES:
        raise ValueError(f"config.json: architectures is {names}; only {' and '.join(_TYPES)} are supported")
    for entry in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(entry):
            raise ValueError(f"config.json: {entry} is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act is {config['hidden_act']!r}; only 'silu' is supported")
    for entry in _REQUIRED:
        if type(config.get(entry)) is not int or config[entry] < 1:
            raise ValueError(f"config.json: {entry} is {config.get(entry)!r}; must be a positive integer")
    values = {ours: config[theirs] for ours, theirs in _NAMES.items() if config.get(theirs) is not None}
    values.setdefault("key_value_heads", values["heads"])
    values.setdefault("head_size", values["hidden_size"] // values["heads"])
    rope = dict(config.get("rope_parameters") or {})
    values["rope_theta"] = float(rope.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0)
    values["rope_scaling"] = _rope_scaling(rope or config.get("rope_scaling") or {})
    eos = config.get("eos_token_id")
    eos = eos[0] if isinstance(eos, list) and eos else eos
    if type(eos) is not int or not 0 <= eos < values["vocabulary_size"]:
        raise ValueError(
            f"config.json: eos_token_id is {config.get('eos_token_id')!r}; must be a token id below vocab_size"
        )
    return ModelConfig(qk_norm=names[0] == QWEN3, **values), eos


def _rope_scaling(entries: Mapping[str, Any]) -> RopeScaling | None:
    kind = entries.get("rope_type", entries.get("type", "default"))
    if kind == "default":
        return None
    if (
        float(entries.get("partial_rotary_factor", 1.0)) != 1.0
        or entries.get("mscale")
        or not entries.get("truncate", True)
    ):
        raise ValueError("config.json: partial_rotary_factor, mscale and truncate of rope_parameters are not supported")
    known = {field.name for field in fields(RopeScaling)} - {"rope_type"}
    values = {name: value for name, value in entries.items() if name in known and value is not None}
    if "factor" not in values:
        raise ValueError(f"config.json: rope_parameters has no factor for rope_type {kind!r}")
    try:
        return RopeScaling(kind, **values)
    except ValueError as error:
        raise ValueError(f"config.json: rope_parameters: {error}") from error


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as SafeTensors, with the format metadata that `transformers` requires.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # callers expect an OSError for a full or failed disk
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads a whole SafeTensors file."""
    from safetensors.torch import load_file

    return load_file(path)


def load_decoder(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Decoder:
    """A decoder with these weights, in fp32 on the CPU.

    Raises:
        ValueError: an unsupported config, or tensors that are missing, unexpected, of another shape, or not finite; the
            message names them.
    """
    from models.decoder import Decoder

    shape, eos_id = from_config(config)
    model = Decoder(shape, eos_id)
    found = dict(weights)
    if shape.tied:
        found.pop("lm_head.weight", None)  # some exporters write it although it is tied
    wrong = [*_differences({name: parameter.shape for name, parameter in model.named_parameters()}, found)]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"the weights do not match {architecture(shape)} in config.json: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict({name: tensor.float() for name, tensor in found.items()})
    return model


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Tensor]) -> Iterator[str]:
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is not a tensor of this model"
        elif found[name].shape != wanted[name]:
            yield f"{name} has shape {list(found[name].shape)}, not {list(wanted[name])}"
        elif not found[name].isfinite().all():
            yield f"{name} holds values that are not finite"


def load_folder(folder: Path) -> Decoder:
    """A decoder from a folder written by `save_pretrained`, with weights in one file or several.

    Raises:
        ValueError: see `load_decoder`; or a file is missing or damaged.
    """
    from safetensors import SafetensorError

    config = _json(folder / "config.json")
    index = folder / WEIGHTS_INDEX
    names = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else [WEIGHTS]
    weights: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if path.parent != folder or not path.is_file():  # also refuses a path outside the folder
            raise ValueError(f"{folder} has no {name}; only SafeTensors weights are supported")
        try:
            weights |= load_weights(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    try:
        return load_decoder(config, weights)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found
