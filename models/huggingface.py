"""Conversion of a decoder's shape to and from Hugging Face's `config.json`: Qwen3, Qwen2, Llama and Mistral.

Parameter names are the same on both sides, so a state dict needs no mapping; as in transformers, a tied head is not
stored. Does not import transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from models.rope import RopeScaling
from models.sizes import Architecture, ModelConfig

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"

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


@dataclass(frozen=True)
class _Class:
    """What is particular to one of Hugging Face's classes."""

    model_type: str
    absent: Mapping[str, Any]
    """What transformers takes for an entry that its `config.json` does not have."""
    own: Mapping[str, Any]
    """Entries that are written besides those of all classes."""
    without: tuple[str, ...] = ()
    """Entries that it does not have."""


_CLASSES: Mapping[Architecture, _Class] = {
    "Qwen3ForCausalLM": _Class(
        "qwen3",
        {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768},
        {"attention_bias": False, "use_sliding_window": False},
    ),
    "Qwen2ForCausalLM": _Class(
        "qwen2",
        {"num_key_value_heads": 32, "max_position_embeddings": 32_768},
        {"use_sliding_window": False},
        without=("head_dim",),
    ),
    "LlamaForCausalLM": _Class(
        "llama", {"max_position_embeddings": 2048}, {"attention_bias": False, "mlp_bias": False}
    ),
    "MistralForCausalLM": _Class(
        "mistral",
        {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
        {"sliding_window": None},
    ),
}
_UNSUPPORTED = ("attention_bias", "mlp_bias", "use_sliding_window")
_REFUSED = {
    "auto_map": "the model needs code of its own, which is never run; take a model of a stock architecture",
    "quantization_config": "its weights are quantized; take the model's original weights",
}


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids that a model's configuration names."""

    eos_ids: tuple[int, ...]
    """Each ends a text that the model writes."""
    bos_id: int | None = None
    pad_id: int | None = None

    @classmethod
    def from_scratch(cls, eos_id: int) -> SpecialTokens:
        """Those of a model that is trained from scratch."""
        return cls((eos_id,), pad_id=eos_id)


def to_config(config: ModelConfig, tokens: SpecialTokens, dtype: str = "float32") -> dict[str, Any]:
    """The content of `config.json`.

    Rotary settings are written both at top level, for vLLM and transformers 4, and in `rope_parameters`, for
    transformers 5.
    """
    scaling = _rope_entries(config.rope_scaling)
    mine = _CLASSES[config.architecture]
    names = {ours: theirs for ours, theirs in _NAMES.items() if theirs not in mine.without}
    return {
        "architectures": [config.architecture],
        "model_type": mine.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in names.items()},
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta, **(scaling or {})},
        **({"rope_scaling": scaling} if scaling else {}),
        "hidden_act": "silu",
        **{name: mine.own[name] for name in ("attention_bias",) if name in mine.own},
        "attention_dropout": 0.0,
        **{name: value for name, value in mine.own.items() if name != "attention_bias"},
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": tokens.bos_id,
        "eos_token_id": tokens.eos_ids[0] if len(tokens.eos_ids) == 1 else [*tokens.eos_ids],
        "pad_token_id": tokens.pad_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def _rope_entries(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The entries of a scaling that belong to its `rope_type`."""
    if scaling is None:
        return None
    entries = ("rope_type", "factor", *_ROPE_ENTRIES[scaling.rope_type])
    return {name: value for name in entries if (value := getattr(scaling, name)) is not None}


def from_config(config: Mapping[str, Any]) -> tuple[ModelConfig, SpecialTokens]:
    """The shape and special tokens in a `config.json`.

    Raises:
        ValueError: another architecture, a feature that the decoder does not compute, or an entry that is missing.
    """
    name = _architecture(config.get("architectures"))
    mine = _CLASSES[name]
    config = {**mine.absent, "tie_word_embeddings": False, **config}
    for entry, why in _REFUSED.items():
        if config.get(entry):
            raise ValueError(f"config.json has {entry}: {why}")
    for entry in _UNSUPPORTED:
        if config.get(entry):
            raise ValueError(f"config.json: {entry} is not supported")
    _refuse_window(config, windowed=name == "MistralForCausalLM")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act is {config['hidden_act']!r}; only 'silu' is supported")
    for entry in (*_REQUIRED, *(entry for entry in ("num_key_value_heads", "head_dim") if config.get(entry))):
        if type(config.get(entry)) is not int or config[entry] < 1:
            raise ValueError(f"config.json: {entry} is {config.get(entry)!r}; must be a positive integer")
    values = {ours: config[theirs] for ours, theirs in _NAMES.items() if config.get(theirs) is not None}
    values.setdefault("key_value_heads", values["heads"])
    width = values["hidden_size"] // values["heads"]
    if values.setdefault("head_size", width) != width and "head_dim" in mine.without:
        raise ValueError(f"config.json: head_dim is {values['head_size']}; must be hidden_size / num_attention_heads")
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ValueError("config.json: rope_parameters differ by layer, which is not supported")
    rope = dict(rope)
    values["rope_theta"] = float(rope.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0)
    values["rope_scaling"] = _rope_scaling(rope or config.get("rope_scaling") or {})
    return ModelConfig(architecture=name, **values), _special_tokens(config)


def _architecture(names: Any) -> Architecture:
    for name in _CLASSES:
        if names == [name]:
            return name
    raise ValueError(f"config.json: architectures is {names}; one of {', '.join(_CLASSES)} is supported")


def _refuse_window(config: Mapping[str, Any], windowed: bool) -> None:
    """Refuses attention to the last tokens only, which would be computed as attention to all."""
    window = config.get("sliding_window") if windowed else None
    if window is not None and window < config["max_position_embeddings"]:
        raise ValueError(
            f"config.json: sliding_window is {window} of {config['max_position_embeddings']} positions: its layers "
            "attend to the last tokens only, which is not supported; take a version of the model without "
            "(sliding_window: null), as Mistral 7B has it from v0.2 on"
        )
    if "sliding_attention" in (config.get("layer_types") or ()):
        raise ValueError("config.json: layer_types has sliding_attention, which is not supported")


def _special_tokens(config: Mapping[str, Any]) -> SpecialTokens:
    eos = config.get("eos_token_id")
    ids: list[Any] = eos if isinstance(eos, list) else [eos]
    if not ids or not all(_is_id(token, config) for token in ids):
        raise ValueError(
            f"config.json: eos_token_id is {eos!r}; must be a token id below vocab_size, or a list of them"
        )
    bos, pad = config.get("bos_token_id"), config.get("pad_token_id")
    pad = None if pad == -1 else pad  # as the first Llama folders say that there is none
    for entry, token in (("bos_token_id", bos), ("pad_token_id", pad)):
        if token is not None and not _is_id(token, config):
            raise ValueError(f"config.json: {entry} is {token!r}; must be a token id below vocab_size")
    return SpecialTokens(tuple(ids), bos, pad)


def _is_id(token: Any, config: Mapping[str, Any]) -> bool:
    return type(token) is int and 0 <= token < config["vocab_size"]


def _rope_scaling(entries: Mapping[str, Any]) -> RopeScaling | None:
    kind = entries.get("rope_type", entries.get("type", "default"))
    if (
        float(entries.get("partial_rotary_factor") or 1.0) != 1.0
        or entries.get("mscale")
        or not entries.get("truncate", True)
    ):
        raise ValueError("config.json: partial_rotary_factor, mscale and truncate of rope_parameters are not supported")
    if kind == "default":
        return None
    known = {field.name for field in fields(RopeScaling)} - {"rope_type"}
    values = {name: value for name, value in entries.items() if name in known and value is not None}
    if "factor" not in values:
        raise ValueError(f"config.json: rope_parameters has no factor for rope_type {kind!r}")
    try:
        return RopeScaling(kind, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: rope_parameters: {error}") from error
