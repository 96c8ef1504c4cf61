"""A training run's weights and a tokenizer as a stock Hugging Face folder, loadable with no code of ours."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from models.huggingface import WEIGHTS_INDEX
from models.lora import Lora
from models.weight_files import plan_weight_files, write_weight_file
from stages.store import Artifact, ArtifactWriter, Config, InputError, Stage, Store, StoreError
from stages.store.private_files import make_private_folder
from stages.store.store import describe_os_error, translate_disk_errors
from stages.training.adapters import MergedWeights, write_adapter
from stages.training.config import LoraConfig, TrainingConfig
from stages.training.model import config_of, generation_config_of
from stages.training.run import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    from stages.training.checkpoint.weights import CheckpointWeights


class ExportConfig(Config):
    """Export of a trained model."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the exported weights."""
    step: int | None = Field(None, ge=0)
    """Step of the checkpoint to export, one that the run has kept (training.checkpoint.keep_every_steps, keep_best).
    Absent: the end of the run."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    config: dict[str, Any]
    """The content of `config.json`."""
    parameters: int
    bytes: int
    """Of all files."""
    held_bytes: int
    """Most memory that tensors took at once."""


def build(config: ExportConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Makes `weights/`: config, generation config, weights (SafeTensors), tokenizer; no code and no pickle. A run that
    trained adapters has them merged there, and by themselves in `adapter/`, as peft's files.

    Args:
        inputs: `training`, whose weights are taken; `tokens`, whose tokenizer it was trained with; where adapters were
            trained also `base`, the model that they were trained on.

    Raises:
        InputError: a model and tokens that do not belong together, a tokenizer that needs code of its own, a step
            without a checkpoint.
        StoreError: the checkpoint is damaged.
    """
    from stages.training.checkpoint.weights import checkpoint_weights, final_weights

    training: Artifact = inputs["training"]
    tokens: Artifact = inputs["tokens"]
    if training.manifest.inputs.get("tokens") != tokens.digest:
        raise InputError(f"model: {training.id} was not trained on {tokens.id}; give the tokens that it was trained on")
    described = json.loads(training.read(CONFIG))
    sampling = json.loads(training.read(GENERATION_CONFIG))
    lora = _adapters_of(training)
    base: Any = inputs.get("base")
    if lora and (base is None or base.digest != training.manifest.inputs.get("base")):
        raise InputError(
            f"model: {training.id} trained adapters of the base {training.manifest.inputs.get('base', '')[:12]}; give "
            "that model as input `base`"
        )
    with tempfile.TemporaryDirectory(dir=writer.scratch) as scratch, ExitStack() as opened:
        if config.step is None:
            weights = final_weights(training)
        else:
            weights, _ = checkpoint_weights(training.store, training.folder, config.step, Path(scratch))
        if lora:
            write_adapter(weights, base, lora, lambda name: writer.file(f"adapter/{name}"))
        exported = _write_model(
            opened.enter_context(MergedWeights(weights, base, lora)) if lora else weights,
            described,
            sampling,
            tokens,
            config.dtype,
            lambda name: writer.file(f"weights/{name}"),
            writer.events.progress,
        )
    writer.counts["parameters"] = exported.parameters
    writer.counts["vocabulary"] = described["vocab_size"]
    for name in ("bits_per_byte", "loss"):
        if name in training.manifest.metrics and config.step is None:
            writer.metrics[name] = training.manifest.metrics[name]
    writer.details.update(architecture=described["architectures"][0], dtype=config.dtype)


def export_checkpoint(
    store: Store,
    run: str,
    settings: TrainingConfig,
    tokens: Artifact,
    config: ExportConfig,
    folder: Path,
    base: Artifact | None = None,
) -> tuple[Exported, int]:
    """Writes a checkpoint of a run, finished or not, as a Hugging Face folder outside of the store. Also returns its
    step.

    Args:
        run: the run's folder in the store.
        settings: of the run.
        tokens: what it was trained on.
        config: with no step, the newest checkpoint.
        folder: does not exist yet, or is empty; config.json appears in it last.
        base: the model that it went on from; adapters are merged into it.

    Raises:
        InputError: the folder has something in it, or there is no such checkpoint.
        StoreError: the checkpoint is damaged, or the folder cannot be written.
    """
    from stages.training.checkpoint.weights import checkpoint_weights

    target = folder.resolve()
    with translate_disk_errors("model", target), ExitStack() as cleanup:
        inside = _open_folder(target, cleanup)
        fetched, aside = inside / "fetched", inside / "model"
        fetched.mkdir()
        aside.mkdir()

        def file(name: str) -> Path:
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            return path

        weights: CheckpointWeights | MergedWeights
        weights, step = checkpoint_weights(store, run, config.step, fetched)
        described = config_of(settings, tokens, base)
        sampling = generation_config_of(described, base)
        if lora := settings.model.adapters:
            if base is None:
                raise InputError("model: the run trained adapters; give the base that they were trained on")
            weights = cleanup.enter_context(MergedWeights(weights, base, lora))
        exported = _write_model(weights, described, sampling, tokens, config.dtype, file)
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):  # it last: without, no model
            path.rename(target / path.name)
    return exported, step


def _open_folder(folder: Path, cleanup: ExitStack) -> Path:
    """Refuses a folder that has something in it, creates one that does not exist; returns a folder to work in.

    That one is in it, since it may be a disk of its own, and is removed by `cleanup`.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"export: {folder} is not a folder; give one that does not exist yet, or is empty")
        if not folder.exists():
            make_private_folder(folder)
            cleanup.callback(_remove_if_empty, folder)
        elif any(folder.iterdir()):
            raise InputError(f"export: {folder} is not empty; give a folder that does not exist yet, or is empty")
        return Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix=".headwater-", dir=folder)))
    except OSError as error:
        raise StoreError(
            f"export: cannot write to {folder}: {describe_os_error(error)}; give another folder"
        ) from error


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it has what was written
        folder.rmdir()


def _adapters_of(training: Artifact) -> Lora | None:
    """The adapters that a finished run trained; None: it trained all weights."""
    model = training.manifest.config.get("model")
    chosen = model.get("lora") if isinstance(model, dict) else None
    return LoraConfig.model_validate(chosen).adapters if chosen is not None else None


def _write_model(
    weights: CheckpointWeights | MergedWeights,
    described: dict[str, Any],
    sampling: dict[str, Any],
    tokens: Artifact,
    dtype: str,
    file: Callable[[str], Path],
    progress: Callable[..., None] = lambda *arguments, **more: None,
) -> Exported:
    """Writes the files of a model, its tensors one at a time: the memory that this takes is the largest one's, twice at
    most.

    Args:
        described: the content of `config.json`.
        sampling: the content of `generation_config.json`.
        file: gives a file to write, by its name in the model's folder.
        progress: is told of each file of weights.
    """
    described = described | {"dtype": dtype, "torch_dtype": dtype}
    small = {"config.json": _json(described), "generation_config.json": _json(sampling)}
    for entry in tokens.files("tokenizer/"):
        content = tokens.read(entry.path)
        if entry.path.endswith(".json") and "auto_map" in json.loads(content):
            raise InputError(f"model: {tokens.id}/{entry.path} has an auto_map: it would load code, and is refused")
        small[entry.path.removeprefix("tokenizer/")] = content
    shapes = weights.shapes
    files, index = plan_weight_files(shapes, dtype)
    if index is not None:
        small[WEIGHTS_INDEX] = index
    for name, content in small.items():
        file(name).write_bytes(content)
    size, held = sum(map(len, small.values())), 0
    for number, part in enumerate(files):
        path = file(part.name)
        held = max(held, write_weight_file(part, shapes, dtype, weights.read, path))
        size += path.stat().st_size
        progress(number + 1, len(files), "files", note=f"{held / 2**20:,.0f} MiB of memory for tensors")
    return Exported(described, sum(map(math.prod, shapes.values())), size, held)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


export = Stage("model", 1, build)
