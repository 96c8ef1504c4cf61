"""The files that a model folder may have, and the index of weights that lie in several files.

vLLM changes what it does when certain files exist: `params.json` and `consolidated*.safetensors` switch it to Mistral's
format, `hf_quant_config.json` to quantized weights, `modules.json` to a sentence encoder that reads the folders named
there, `preprocessor_config.json` to another class. New versions add more, so what is not known here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError
from serving.json_kinds import Kind, check_values, is_map_of, is_number, is_text

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
VOCABULARIES = ("vocab.json", "added_tokens.json")
"""Maps from token to id: any word may be a key, even `auto_map`."""
WEIGHTS_INDEX = "model.safetensors.index.json"
CHAT_TEMPLATE = "chat_template.jinja"
KNOWN_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".jinja", ".txt", ".md", ""})
"""Suffixes of files that may be served at all; others are code or pickles."""

NAMES = frozenset(
    {
        *(CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, *VOCABULARIES, WEIGHTS_INDEX),
        *("merges.txt", "tokenizer.model", CHAT_TEMPLATE, ".gitattributes"),
        *(f"{name}{suffix}" for name in ("README", "LICENSE", "NOTICE") for suffix in ("", ".md", ".txt")),
    }
)
_WEIGHTS = re.compile(r"model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
_MORE_TEMPLATES = re.compile(r"additional_chat_templates/[A-Za-z0-9][A-Za-z0-9_.-]*\.jinja")

_QUANTIZED = "it describes quantized weights, which are not served; export the model in bfloat16 or float32"
_SENTENCES = "it makes the engine serve a sentence encoder, and reads other folders; remove it"
_IMAGES = "it makes the engine prepare images, video or sound, and only models of text are served; remove it"
_MISTRAL = "it makes the engine read Mistral's format instead of config.json; remove it"
_ADAPTER = "adapters are not served; merge it into the weights, and export the model"
FILE_REASONS = {
    **dict.fromkeys(("params.json", "tekken.json", "consolidated.safetensors"), _MISTRAL),
    **dict.fromkeys(("hf_quant_config.json", "quantize_config.json", "quant_config.json"), _QUANTIZED),
    **dict.fromkeys(("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"), _SENTENCES),
    **dict.fromkeys(("adapter_config.json", "adapter_model.safetensors"), _ADAPTER),
    **dict.fromkeys(
        ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json"),
        _IMAGES,
    ),
}
"""Why a known file is refused, for its message; other unknown files are refused, too."""


def check_name(path: Path, name: str) -> None:
    """Checks that a model folder may have a file of this name.

    Args:
        path: the file, for messages.
        name: its path in the folder, with `/`.

    Raises:
        ModelRefusedError: code, a pickle, or a file that is not known.
    """
    suffix = path.suffix.lower()
    if suffix not in KNOWN_SUFFIXES:
        raise ModelRefusedError(
            f"{path}: {suffix} files are refused, only SafeTensors and JSON are allowed; export the model again"
        )
    if name in FILE_REASONS:
        raise ModelRefusedError(f"{path} is refused: {FILE_REASONS[name]}")
    if not (name in NAMES or _WEIGHTS.fullmatch(name) or _MORE_TEMPLATES.fullmatch(name)):
        raise ModelRefusedError(
            f"{path} is refused: the engine may follow it, and it is not a known file of a model folder; remove it, or "
            "export the model again"
        )


def check_weights_index(path: Path, content: Any, weights: Collection[str]) -> None:
    """Checks the content of `model.safetensors.index.json` against the files of weights in the folder.

    Args:
        weights: their names.

    Raises:
        ModelRefusedError: a key that is not known, or a weight in a file that the folder does not have; or a file of
            weights that the index leaves out.
    """
    kinds = {
        "metadata": Kind("an object of numbers and strings", is_map_of(lambda v: is_number(v) or is_text(v))),
        "weight_map": Kind("an object of file names", is_map_of(is_text)),
    }
    check_values(path, content, kinds, {}, WEIGHTS_INDEX)
    files = content.get("weight_map")
    if not files:
        raise ModelRefusedError(f"{path} has no weight_map; export the model again")
    for tensor, file in files.items():
        if file not in weights:  # so it is the name of a file in the folder, not a path
            raise ModelRefusedError(
                f"{path}: {tensor[:100]!r} is in {file[:100]!r}, which is not a file of weights in the model folder; "
                "export the model again"
            )
    if left := sorted(set(weights) - set(files.values())):
        raise ModelRefusedError(f"{path.with_name(left[0])} is not in {WEIGHTS_INDEX}; remove it, or export again")
