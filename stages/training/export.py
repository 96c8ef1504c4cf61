"""A training run's weights and a tokenizer as a stock Hugging Face folder, loadable with no code of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from models.huggingface import load_weights, save_weights
from stages.store import Artifact, ArtifactWriter, Config, InputError, Stage
from stages.training.run import CONFIG, WEIGHTS


class ExportConfig(Config):
    """Export of a trained model."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the exported weights."""


def build(config: ExportConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Makes `weights/`: config, generation config, weights (SafeTensors), tokenizer; no code and no pickle.

    Args:
        inputs: `training`, whose weights are taken; `tokens`, whose tokenizer it was trained with.

    Raises:
        InputError: a model and tokens that do not belong together, a tokenizer that needs code of its own.
    """
    import torch

    training: Artifact = inputs["training"]
    tokens: Artifact = inputs["tokens"]
    if training.manifest.inputs.get("tokens") != tokens.digest:
        raise InputError(f"model: {training.id} was not trained on {tokens.id}; give the tokens that it was trained on")
    described = json.loads(training.read(CONFIG)) | {"dtype": config.dtype, "torch_dtype": config.dtype}
    vocabulary, eos_id = described["vocab_size"], described["eos_token_id"]
    for entry in tokens.files("tokenizer/"):
        content = tokens.read(entry.path)
        if entry.path.endswith(".json") and "auto_map" in json.loads(content):
            raise InputError(f"model: {tokens.id}/{entry.path} has an auto_map: it would load code, and is refused")
        writer.put(f"weights/{entry.path.removeprefix('tokenizer/')}", content)
    writer.put("weights/config.json", _json(described))
    writer.put("weights/generation_config.json", _json({"eos_token_id": eos_id, "pad_token_id": eos_id}))
    weights = load_weights(training.local(WEIGHTS))
    kind = getattr(torch, config.dtype)
    save_weights({name: tensor.to(kind) for name, tensor in weights.items()}, writer.file("weights/model.safetensors"))
    writer.counts["parameters"] = sum(tensor.numel() for tensor in weights.values())
    writer.counts["vocabulary"] = vocabulary
    for name in ("bits_per_byte", "loss"):
        if name in training.manifest.metrics:
            writer.metrics[name] = training.manifest.metrics[name]
    writer.details.update(architecture=described["architectures"][0], dtype=config.dtype)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


export = Stage("model", 1, build)
