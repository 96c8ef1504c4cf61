"""A checkpoint of adapters as a whole model, and as peft's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from models.huggingface import from_config
from models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, A, B, Lora, merge, peft_config, peft_name
from models.pretrained import PretrainedWeights, check_tensors, expected_shapes, read_json
from models.weight_files import WeightFile, write_weight_file
from stages.store import Artifact, StoreError
from stages.training.model import base_folder

if TYPE_CHECKING:
    from torch import Tensor

    from stages.training.checkpoint.weights import CheckpointWeights


class MergedWeights(AbstractContextManager["MergedWeights"]):
    """The weights of a base with adapters merged into them, one tensor at a time; open until the context ends.

    Shapes and tensors are given as `CheckpointWeights` gives them.

    Args:
        adapters: a checkpoint's weights, which are adapters only.
        base: the model that they were trained on.

    Raises:
        StoreError: the base's weights cannot be read, or the adapters do not belong to it.
    """

    def __init__(self, adapters: CheckpointWeights, base: Artifact, lora: Lora):
        self.adapters, self.lora = adapters, lora
        known = adapters.shapes
        adapted = {name.removesuffix(end) for name in known for end in (A, B) if name.endswith(end)}
        if known.keys() != {f"{stem}{end}" for stem in adapted for end in (A, B)}:
            raise StoreError("model: the checkpoint does not hold adapters alone; headwater verify names damaged files")
        with ExitStack() as opened:
            try:
                folder = base_folder(base)
                shape, _ = from_config(read_json(folder / "config.json"))
                self._base = opened.enter_context(PretrainedWeights(folder))
                check_tensors(shape, self._base)
            except ValueError as error:
                raise StoreError(f"model: the base's weights cannot be read: {error}") from error
            self.shapes = expected_shapes(shape)
            """Whole shapes by name."""
            missing = sorted(stem for stem in adapted if f"{stem}.weight" not in self.shapes)
            if missing:
                raise StoreError(f"model: the base {base.id} has no {missing[0]}.weight, which the checkpoint adapts")
            self._opened = opened.pop_all()

    def read(self, name: str) -> Tensor:
        """A whole tensor, in fp32."""
        weight = self._base.rows(name, 0, self.shapes[name][0]).float()
        stem = name.removesuffix(".weight")
        if f"{stem}{A}" not in self.adapters.shapes:
            return weight
        return merge(weight, self.adapters.read(f"{stem}{A}"), self.adapters.read(f"{stem}{B}"), self.lora.scaling)

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def write_adapter(adapters: CheckpointWeights, base: Artifact, lora: Lora, file: Callable[[str], Path]) -> None:
    """Writes adapters as `peft.PeftModel.from_pretrained` reads them, in fp32.

    Args:
        file: gives a file to write, by its name in the adapter's folder.
    """
    shapes = {peft_name(name): shape for name, shape in adapters.shapes.items()}
    names = {peft_name(name): name for name in adapters.shapes}
    weights = WeightFile(ADAPTER_WEIGHTS, tuple(sorted(shapes)))
    write_weight_file(weights, shapes, "float32", lambda name: adapters.read(names[name]), file(ADAPTER_WEIGHTS))
    location = base.manifest.details.get("location") or base.id
    file(ADAPTER_CONFIG).write_text(json.dumps(peft_config(lora, location), indent=2) + "\n")
