"""The keys that a model folder's `tokenizer_config.json` and `special_tokens_map.json` may have.

transformers hands both files' entries to the tokenizer's class as arguments. Some of them name files to open
(`vocab_file`, `tokenizer_file`, `sp_model_kwargs`), models to load from, or code to run, so what is not known is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError
from serving.json_kinds import BOOLEAN, NUMBER, WORD, WORDS, Kind, check_values, is_list_of, is_map_of, is_text, one_of

STOCK_TOKENIZERS = frozenset(
    f"{family}Tokenizer{kind}"
    for family in (
        *(
            "Bert",
            "BioGpt",
            "Bloom",
            "CodeGen",
            "CodeLlama",
            "Cohere",
            "GPT2",
            "GPTNeoX",
            "Gemma",
            "Llama",
            "OpenAIGPT",
        ),
        *("Qwen2", "Qwen3_5", "Roberta", "T5", "XLMRoberta"),
    )
    for kind in ("", "Fast")
) | {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}
"""Tokenizer classes of transformers itself. Any other name refers to code in the model folder."""

_FLAGS = frozenset({"lstrip", "rstrip", "single_word", "normalized", "special"})
_TOKEN_NAME = re.compile(r"[A-Za-z0-9_]{1,60}_token")
"""Special tokens have names of their own in some models: `image_token`."""


def _is_token(value: Any) -> bool:
    """Whether it is a special token: its text, or an object with its text and flags."""
    if not isinstance(value, dict):
        return is_text(value)
    flags = {key: entry for key, entry in value.items() if key not in ("content", "__type")}
    return (
        is_text(value.get("content"))
        and value.get("__type", "AddedToken") == "AddedToken"
        and all(key in _FLAGS and isinstance(entry, bool) for key, entry in flags.items())
    )


def _is_chat_template(value: Any) -> bool:
    """Whether it is a template, or a list of named ones."""
    return is_text(value) or is_list_of(
        lambda item: isinstance(item, dict) and item.keys() == {"name", "template"} and all(map(is_text, item.values()))
    )(value)


TOKEN = Kind("a token's text, or an object with its content and flags", _is_token)
TOKENS = Kind(
    "a list of tokens, or an object of named ones", lambda v: is_list_of(_is_token)(v) or is_map_of(_is_token)(v)
)
SIDE = one_of("left", "right")

_MORE_TOKENS: Mapping[str, Kind] = dict.fromkeys(("additional_special_tokens", "extra_special_tokens"), TOKENS)

SETTINGS: Mapping[str, Kind] = {
    "tokenizer_class": Kind("a class of transformers", lambda value: is_text(value) and value in STOCK_TOKENIZERS),
    "backend": one_of("tokenizers"),
    "model_max_length": NUMBER,
    "model_input_names": WORDS,
    "padding_side": SIDE,
    "truncation_side": SIDE,
    **dict.fromkeys(
        (
            *("clean_up_tokenization_spaces", "split_special_tokens", "spaces_between_special_tokens"),
            *(
                "add_prefix_space",
                "add_bos_token",
                "add_eos_token",
                "use_default_system_prompt",
                "legacy",
                "is_local",
                "local_files_only",
            ),
        ),
        BOOLEAN,
    ),
    "errors": WORD,
    "added_tokens_decoder": Kind(
        "an object of tokens by id", is_map_of(lambda v: isinstance(v, dict) and _is_token(v))
    ),
    "chat_template": Kind("a template, or a list of templates with a name each", _is_chat_template),
    **_MORE_TOKENS,
}
"""Keys of `tokenizer_config.json` besides those of tokens, which are named `..._token`."""

_FILE = "it names a file to open, which may lie outside of the model folder; remove it"
_CODE = "it refers to code in the model folder; remove it, and save the tokenizer as PreTrainedTokenizerFast"
_PROCESSOR = "it names a class for images or sound, and only models of text are served; remove it"
REASONS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("vocab_file", "merges_file", "tokenizer_file", "added_tokens_file", "special_tokens_map_file"),
            *("tokenizer_config_file", "chat_template_file", "spm_file", "gguf_file", "fast_tokenizer_files"),
            *("source_spm", "target_spm", "sp_model_kwargs", "init_inputs"),
        ),
        _FILE,
    ),
    **dict.fromkeys(("auto_map", "trust_remote_code"), _CODE),
    **dict.fromkeys(
        ("name_or_path", "_name_or_path", "subfolder", "revision"), "it names another model to load from; remove it"
    ),
    **dict.fromkeys(("processor_class", "image_processor_type", "feature_extractor_type"), _PROCESSOR),
}
"""Why a known key is refused, for its message; other unknown keys are refused, too."""


def check_tokenizer_config(path: Path, content: Any) -> None:
    """Checks the content of a `tokenizer_config.json`.

    Raises:
        ModelRefusedError: a key that is not known, a value of another kind, or a class that transformers does not have.
    """
    name = content.get("tokenizer_class") if isinstance(content, dict) else None
    if name is not None and not SETTINGS["tokenizer_class"].accepts(name):
        raise ModelRefusedError(
            f"{path}: tokenizer_class {name!r} is not a class of transformers, so it would be loaded as code from "
            "the model folder; save the tokenizer as PreTrainedTokenizerFast"
        )
    check_values(path, content, {**SETTINGS, **_named_tokens(content)}, REASONS, "tokenizer_config.json")


def check_special_tokens_map(path: Path, content: Any) -> None:
    """Checks the content of a `special_tokens_map.json`, whose entries override those of `tokenizer_config.json`.

    Raises:
        ModelRefusedError: a key that is not the name of special tokens, or a value that is not a token.
    """
    check_values(path, content, {**_MORE_TOKENS, **_named_tokens(content)}, REASONS, "special_tokens_map.json")


def _named_tokens(content: Any) -> dict[str, Kind]:
    return {key: TOKEN for key in content if _TOKEN_NAME.fullmatch(key)} if isinstance(content, dict) else {}
