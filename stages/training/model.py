"""Which model a run trains: a named size, or the shape of the base that it goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.huggingface import SpecialTokens, from_config, to_config
from models.sizes import ModelConfig, config_for_size
from stages.base.tokenizer import FOLDER
from stages.store import Artifact, ConfigError, InputError
from stages.training.config import TrainingConfig

SAMPLING = (
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "max_new_tokens",
)
"""Entries of a base's `generation_config.json` that its successors keep: how its owner wants it sampled."""


def model_of(
    settings: TrainingConfig, stream: Mapping[str, Any], base: Artifact | None
) -> tuple[ModelConfig, SpecialTokens]:
    """The shape that a run trains on a token stream, and the special tokens that its model names.

    Args:
        stream: the content of `stream.json`.
        base: the model that the run goes on from.

    Raises:
        ConfigError: sequences that are longer than the base's context.
        InputError: the base is not one that can be trained, or the tokens are not of its tokenizer.
    """
    longest = settings.data.max_rows_per_sample * stream["sequence_length"]
    size, eos_id = stream["vocabulary_size"], stream["eos_id"]
    if base is None:
        return config_for_size(settings.model.size, size, longest), SpecialTokens.from_scratch(eos_id)
    try:
        shape, tokens = from_config(json.loads(base.read(f"{FOLDER}/config.json")))
    except (OSError, ValueError) as error:
        raise InputError(f"training: the base {base.id}: {error}") from error
    if longest > shape.context:
        raise ConfigError(
            f"training: samples have {longest:,} tokens, and the base {base.id} was made for {shape.context:,}; set "
            "tokens.sequence_length or rows_per_sample lower"
        )
    if size > shape.vocabulary_size:
        raise InputError(
            f"training: the tokens have a vocabulary of {size:,}, and the base {base.id} has rows for "
            f"{shape.vocabulary_size:,}: they are not of its tokenizer; build them with training.model.base set"
        )
    if eos_id not in tokens.eos_ids:  # it is what ends documents in training
        tokens = replace(tokens, eos_ids=(*tokens.eos_ids, eos_id))
    return shape, tokens


def base_folder(base: Artifact | None) -> Path:
    """The folder of a base's files on this machine; fetched once a machine from an object store."""
    assert base is not None, "the run starts from scratch"
    return base.local() / FOLDER


def config_of(settings: TrainingConfig, tokens: Artifact, base: Artifact | None) -> dict[str, Any]:
    """The content of a run's `config.json`: the model that it trains on these tokens, in Hugging Face's terms."""
    return to_config(*model_of(settings, json.loads(tokens.read("stream.json")), base))


def generation_config_of(config: Mapping[str, Any], base: Artifact | None) -> dict[str, Any]:
    """The content of a run's `generation_config.json`: its special tokens, and how the base is sampled.

    Args:
        config: the content of its `config.json`.
    """
    name = f"{FOLDER}/generation_config.json"
    theirs = json.loads(base.read(name)) if base is not None and base.files(name) else {}
    kept = {entry: theirs[entry] for entry in SAMPLING if theirs.get(entry) is not None}
    ids = {entry: config[entry] for entry in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return kept | {entry: value for entry, value in ids.items() if value is not None}
