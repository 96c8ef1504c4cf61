"""The keys that a model's `config.json` and `generation_config.json` may have, by architecture.

vLLM and transformers follow many keys to other places: `speculators_config` names another model to load,
`_name_or_path` a folder to read more files from, `attn_implementation` a kernel to download and run, `auto_map` code.
New versions add more, so what is not known here is refused. `tests/serving/test_model_config.py` compares the tables
with the fields of transformers' own config classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError
from serving.json_kinds import (
    BOOLEAN,
    FALSE,
    INTEGER,
    NUMBER,
    TOKEN_ID,
    TOKEN_IDS,
    WORD,
    WORDS,
    Kind,
    check_values,
    is_integer,
    is_list_of,
    one_of,
)

DTYPE = one_of("bfloat16", "float16", "float32")
ROPE_TYPE = one_of("default", "linear", "dynamic", "yarn", "llama3")
LAYER_TYPES = ("full_attention", "sliding_attention")

ROPE_ENTRIES: Mapping[str, Kind] = {
    "rope_type": ROPE_TYPE,
    "type": ROPE_TYPE,  # transformers 4's name
    "rope_theta": NUMBER,
    "partial_rotary_factor": NUMBER,
    "factor": NUMBER,
    "original_max_position_embeddings": INTEGER,
    "attention_factor": NUMBER,
    "beta_fast": NUMBER,
    "beta_slow": NUMBER,
    "low_freq_factor": NUMBER,
    "high_freq_factor": NUMBER,
    "mscale": NUMBER,
    "mscale_all_dim": NUMBER,
    "truncate": BOOLEAN,
}
"""Entries of `rope_parameters`."""


def _is_rope(value: Any) -> bool:
    """Whether it has rotary settings, either for all layers or, as transformers 5 nests them, by layer type."""
    if not isinstance(value, dict):
        return False
    if value and all(key in LAYER_TYPES for key in value):
        return all(isinstance(entries, dict) and _has_rope_entries(entries) for entries in value.values())
    return _has_rope_entries(value)


def _has_rope_entries(value: Mapping[str, Any]) -> bool:
    return all(
        key in ROPE_ENTRIES and (entry is None or ROPE_ENTRIES[key].accepts(entry)) for key, entry in value.items()
    )


ROPE = Kind(
    "an object of rotary settings (rope_type, rope_theta, factor, ...), each a number or a known type", _is_rope
)
LAYERS = Kind(
    f"a list of {' and '.join(LAYER_TYPES)}", is_list_of(lambda item: isinstance(item, str) and item in LAYER_TYPES)
)

COMMON: Mapping[str, Kind] = {
    "architectures": WORDS,
    "model_type": WORD,
    "transformers_version": WORD,
    "dtype": DTYPE,
    "torch_dtype": DTYPE,  # transformers 4's name
    "vocab_size": INTEGER,
    "initializer_range": NUMBER,
    "use_cache": BOOLEAN,
    "tie_word_embeddings": BOOLEAN,
    "bos_token_id": TOKEN_ID,
    "eos_token_id": TOKEN_IDS,
    "pad_token_id": TOKEN_ID,
    "output_hidden_states": FALSE,
    "output_attentions": FALSE,
    "return_dict": BOOLEAN,
    "chunk_size_feed_forward": INTEGER,
    "is_encoder_decoder": FALSE,
}
"""Keys of every architecture."""

_DECODER: Mapping[str, Kind] = {
    "hidden_size": INTEGER,
    "intermediate_size": INTEGER,
    "num_hidden_layers": INTEGER,
    "num_attention_heads": INTEGER,
    "hidden_act": WORD,
    "max_position_embeddings": INTEGER,
    "attention_dropout": NUMBER,
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,  # transformers 4's name
}
_GROUPED_QUERY: Mapping[str, Kind] = {
    **_DECODER,
    "num_key_value_heads": INTEGER,
    "rms_norm_eps": NUMBER,
    "rope_theta": NUMBER,
}
_WINDOWED: Mapping[str, Kind] = {
    "use_sliding_window": BOOLEAN,
    "sliding_window": INTEGER,
    "max_window_layers": INTEGER,
    "layer_types": LAYERS,
}


@dataclass(frozen=True)
class Architecture:
    """What the `config.json` of an architecture may have."""

    model_type: str
    own: Mapping[str, Kind]
    """Keys besides `COMMON`."""

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """All keys."""
        return {**COMMON, **self.own}


ARCHITECTURES: Mapping[str, Architecture] = {
    "Qwen3ForCausalLM": Architecture(
        "qwen3", {**_GROUPED_QUERY, **_WINDOWED, "head_dim": INTEGER, "attention_bias": BOOLEAN}
    ),
    "LlamaForCausalLM": Architecture(
        "llama",
        {
            **_GROUPED_QUERY,
            "head_dim": INTEGER,
            "attention_bias": BOOLEAN,
            "mlp_bias": BOOLEAN,
            "pretraining_tp": INTEGER,
        },
    ),
    "MistralForCausalLM": Architecture("mistral", {**_GROUPED_QUERY, "head_dim": INTEGER, "sliding_window": INTEGER}),
    "Qwen2ForCausalLM": Architecture("qwen2", {**_GROUPED_QUERY, **_WINDOWED}),
    "GPTNeoXForCausalLM": Architecture(
        "gpt_neox",
        {
            **_DECODER,
            "layer_norm_eps": NUMBER,
            "hidden_dropout": NUMBER,
            "classifier_dropout": NUMBER,
            "use_parallel_residual": BOOLEAN,
            "attention_bias": BOOLEAN,
            "is_decoder": BOOLEAN,
            "rotary_pct": NUMBER,
            "rotary_emb_base": NUMBER,
        },
    ),
    "GPT2LMHeadModel": Architecture(
        "gpt2",
        {
            "n_positions": INTEGER,
            "n_ctx": INTEGER,
            "n_embd": INTEGER,
            "n_layer": INTEGER,
            "n_head": INTEGER,
            "n_inner": INTEGER,
            "activation_function": WORD,
            "resid_pdrop": NUMBER,
            "embd_pdrop": NUMBER,
            "attn_pdrop": NUMBER,
            "layer_norm_epsilon": NUMBER,
            "summary_type": WORD,
            "summary_use_proj": BOOLEAN,
            "summary_activation": WORD,
            "summary_proj_to_labels": BOOLEAN,
            "summary_first_dropout": NUMBER,
            "scale_attn_weights": BOOLEAN,
            "scale_attn_by_inverse_layer_idx": BOOLEAN,
            "reorder_and_upcast_attn": BOOLEAN,
            "add_cross_attention": FALSE,
        },
    ),
}
"""The architectures that are served, by their name in `architectures`."""

LEGACY = frozenset({"torch_dtype", "rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base", "n_ctx"})
"""Keys that transformers 4 wrote and 5 still reads, though its config classes do not have them."""

_ELSEWHERE = "it names another model or folder to load from; remove it"
_CODE = "it names code to run; remove it, and export the model in a stock architecture"
_KERNEL = "it can name a kernel that is downloaded and run; remove it: the engine chooses"
_NESTED = "only models of text alone, with one config, are served; export the language model alone"
_ADAPTER = "adapters are not served; merge it into the weights, and export the model"
_POOLING = "the model would be served as a classifier or for embeddings, not for text; remove it"

CONFIG_REASONS: Mapping[str, str] = {
    "_name_or_path": _ELSEWHERE,
    "name_or_path": _ELSEWHERE,
    "base_model_name_or_path": _ELSEWHERE,
    "speculators_config": "it names another model, which the engine would load instead; export the model alone",
    "auto_map": _CODE,
    "trust_remote_code": _CODE,
    "custom_pipelines": _CODE,
    "attn_implementation": _KERNEL,
    "_attn_implementation": _KERNEL,
    "_attn_implementation_internal": _KERNEL,
    "_attn_implementation_autoset": _KERNEL,
    "experts_implementation": _KERNEL,
    "_experts_implementation": _KERNEL,
    "_experts_implementation_internal": _KERNEL,
    "quantization_config": "quantized weights are not served; export the model in bfloat16 or float32",
    "compression_config": "quantized weights are not served; export the model in bfloat16 or float32",
    "text_config": _NESTED,
    "vision_config": _NESTED,
    "audio_config": _NESTED,
    "per_layer_config": _NESTED,
    "adapter_config": _ADAPTER,
    "peft_config": _ADAPTER,
    "_hf_peft_config_loaded": _ADAPTER,
    "id2label": _POOLING,
    "label2id": _POOLING,
    "problem_type": _POOLING,
    "is_causal": _POOLING,
    "transformers_weights": "it names another file of weights; remove it",
    "gguf_file": "it names another file of weights; remove it",
    "configuration_files": "it names another config to read instead of this one; remove it",
}
"""Why a known key is refused, for its message; other unknown keys are refused, too."""


def check_config(path: Path, content: Any) -> None:
    """Checks the content of a `config.json`.

    Raises:
        ModelRefusedError: it is of another architecture, has a key that is not known for it, or a value of another
            kind.
    """
    if not isinstance(content, dict) or not content.get("architectures"):
        raise ModelRefusedError(f"{path} names no architecture; export the model again")
    names = content["architectures"]
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    known = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if known is None:
        raise ModelRefusedError(
            f"{path}: 'architectures' is {str(names)[:100]}, must be one of {', '.join(ARCHITECTURES)} in a list; "
            "other architectures are not served"
        )
    check_values(path, content, known.kinds, CONFIG_REASONS, str(name))
    if content.get("model_type") != known.model_type:  # the engine chooses the config class by it
        raise ModelRefusedError(
            f"{path}: 'model_type' is {content.get('model_type')!r}, must be {known.model_type!r} for {name}; "
            "export the model again"
        )


STRINGS = Kind(
    "a string or a list of strings",
    lambda value: isinstance(value, str) or is_list_of(lambda v: isinstance(v, str))(value),
)
IDS = Kind("a list of token ids", is_list_of(is_integer))

GENERATION: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "top_k"),
            *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences"),
        ),
        INTEGER,
    ),
    **dict.fromkeys(
        (
            *("temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
            *("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "guidance_scale", "max_time"),
        ),
        NUMBER,
    ),
    **dict.fromkeys(
        (
            *("do_sample", "early_stopping", "use_cache", "renormalize_logits", "remove_invalid_values"),
            *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
            *("return_dict_in_generate", "token_healing", "_from_model_config"),
        ),
        BOOLEAN,
    ),
    "bos_token_id": TOKEN_ID,
    "eos_token_id": TOKEN_IDS,
    "pad_token_id": TOKEN_ID,
    "suppress_tokens": IDS,
    "begin_suppress_tokens": IDS,
    "stop_strings": STRINGS,
    "transformers_version": WORD,
}
"""Keys of `generation_config.json`: sampling and token ids. Those of caches, compilers, watermarks and assistant models
are left out: they choose code, and vLLM knows none of them."""

GENERATION_REASONS: Mapping[str, str] = dict.fromkeys(("auto_map", "trust_remote_code", "custom_generate"), _CODE)


def check_generation_config(path: Path, content: Any) -> None:
    """Checks the content of a `generation_config.json`.

    Raises:
        ModelRefusedError: a key that is not known, or a value of another kind.
    """
    check_values(path, content, GENERATION, GENERATION_REASONS, "generation_config.json")
