"""A training run's weights and a tokenizer as a stock Hugging Face folder, loadable with no code of ours."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from models.huggingface import WEIGHTS_INDEX
from models.weight_files import plan_weight_files, write_weight_file
from stages.store import Artifact, ArtifactWriter, Config, InputError, Stage
from stages.training.run import CONFIG

if TYPE_CHECKING:
    from stages.training.checkpoint.weights import CheckpointWeights


class ExportConfig(Config):
    """Export of a trained model."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the exported weights."""
    step: int | None = Field(None, ge=0)
    """Step of the checkpoint to export, one that the run has kept (training.checkpoint.keep_every_steps, keep_best).
    Absent: the end of the run."""


def build(config: ExportConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Makes `weights/`: config, generation config, weights (SafeTensors), tokenizer; no code and no pickle.

    Args:
        inputs: `training`, whose weights are taken; `tokens`, whose tokenizer it was trained with.

    Raises:
        InputError: a model and tokens that do not belong together, a tokenizer that needs code of its own, a step
            without a checkpoint.
    """
    from stages.training.checkpoint.weights import checkpoint_weights, final_weights

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
    with tempfile.TemporaryDirectory(dir=writer.scratch) as scratch:
        if config.step is None:
            weights = final_weights(training)
        else:
            weights = checkpoint_weights(training, config.step, Path(scratch))
        _write_weights(weights, config.dtype, writer)
    writer.counts["parameters"] = sum(math.prod(shape) for shape in weights.shapes.values())
    writer.counts["vocabulary"] = vocabulary
    for name in ("bits_per_byte", "loss"):
        if name in training.manifest.metrics and config.step is None:
            writer.metrics[name] = training.manifest.metrics[name]
    writer.details.update(architecture=described["architectures"][0], dtype=config.dtype)


def _write_weights(weights: CheckpointWeights, dtype: str, writer: ArtifactWriter) -> None:
    """One tensor at a time: the memory that this takes is the largest tensor's, twice at most."""
    shapes = weights.shapes
    files, index = plan_weight_files(shapes, dtype)
    held = 0
    for number, file in enumerate(files):
        held = max(held, write_weight_file(file, shapes, dtype, weights.read, writer.file(f"weights/{file.name}")))
        writer.events.progress(number + 1, len(files), "files", note=f"{held / 2**20:,.0f} MiB of memory for tensors")
    if index is not None:
        writer.put(f"weights/{WEIGHTS_INDEX}", index)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


export = Stage("model", 1, build)
