"""The weights in a Hugging Face folder, read by rows: a rank reads what it holds, and no tensor is held whole twice.

Only SafeTensors are read: other formats of weights can run code, or hold numbers that are not a decoder's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from models.huggingface import WEIGHTS, WEIGHTS_INDEX, from_config
from models.sizes import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from models.decoder import Decoder

DTYPES = ("F32", "BF16", "F16")
"""Number formats of weights that are read, by SafeTensors' names."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_BUFFERS = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
"""Tensors that old exports hold although they follow from the config."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CHUNK_BYTES = 64 << 20


class PretrainedWeights:
    """A folder's tensors, open until `close`.

    Args:
        folder: as `save_pretrained` writes it, its weights in one file or in several with an index.

    Raises:
        ValueError: a file is missing, damaged, or outside of the folder; two files hold one tensor; or there are only
            weights of a format that can run code.
    """

    def __init__(self, folder: Path):
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self._open = ExitStack()
        self._files: dict[str, Any] = {}
        try:
            for name in _weight_files(folder):
                try:
                    file = self._open.enter_context(safe_open(folder / name, "pt"))
                except (SafetensorError, OSError) as error:
                    raise ValueError(f"{folder / name} is damaged: {error}") from error
                for tensor in file.keys():  # noqa: SIM118 (not a mapping)
                    if tensor in self._files:
                        raise ValueError(f"{folder}: {tensor} is in two files; save the model again")
                    self._files[tensor] = file
        except ValueError:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """Names of the tensors, sorted."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Number format, by SafeTensors' name."""
        return str(self._files[name].get_slice(name).get_dtype())

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows of a tensor, on the host, in its own number format."""
        return self._files[name].get_slice(name)[first:end]

    def chunks(self, name: str) -> Iterator[Tensor]:
        """A whole tensor in parts of some rows."""
        shape = self.shape(name)
        rows = max(1, _CHUNK_BYTES // (4 * max(1, math.prod(shape[1:]))))
        for first in range(0, shape[0], rows):
            yield self.rows(name, first, min(shape[0], first + rows))

    def close(self) -> None:
        self._open.close()
        self._files = {}

    def __enter__(self) -> PretrainedWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _weight_files(folder: Path) -> list[str]:
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"{index} has no weight_map from tensors to files; save the model again")
        found = sorted(set(names.values()))
    else:
        found = [WEIGHTS]
    for name in found:
        path = folder / name
        if path.parent != folder or not path.is_file():  # also refuses a path outside the folder
            pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
            why = (
                f"; {pickles[0]} is a pickle, which can run code and is not read: convert it with transformers, "
                "`save_pretrained(folder)`, where you trust it"
                if pickles
                else "; only SafeTensors weights are supported"
            )
            raise ValueError(f"{folder} has no {name}{why}")
    return found


def check_tensors(config: ModelConfig, weights: PretrainedWeights) -> None:
    """Refuses tensors that are not those of the shape. Reads headers, and both tables if a tied head is stored too.

    Raises:
        ValueError: which are missing, unexpected, of another shape or format.
    """
    wanted = expected_shapes(config)
    wrong = [*_differences(wanted, weights, config.tied)]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"the weights do not match {config.architecture} in config.json: {'; '.join(wrong[:3])}{more}")
    if config.tied and HEAD in weights.names and not _equal(weights, HEAD, EMBEDDING):
        raise ValueError(
            f"config.json says tie_word_embeddings, but {HEAD} and {EMBEDDING} differ: one of them would be lost; set "
            "tie_word_embeddings to false if the head is meant, or remove the head"
        )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter of the decoder, by name."""
    import torch

    from models.decoder import Decoder

    with torch.device("meta"):
        model = Decoder(config, 0)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _differences(wanted: Mapping[str, tuple[int, ...]], weights: PretrainedWeights, tied: bool) -> Iterator[str]:
    names = weights.names
    for name in sorted({*wanted, *names}):
        if name not in names:
            yield f"{name} is missing"
        elif name not in wanted:
            if not (tied and name == HEAD) and not _BUFFERS.fullmatch(name):
                yield f"{name} is not a tensor of this model"
        elif weights.shape(name) != wanted[name]:
            yield f"{name} has shape {list(weights.shape(name))}, not {list(wanted[name])}"
        elif weights.dtype(name) not in DTYPES:
            yield f"{name} holds {weights.dtype(name)} numbers, not {', '.join(DTYPES)}"


def _equal(weights: PretrainedWeights, one: str, other: str) -> bool:
    import torch

    if weights.shape(one) != weights.shape(other):
        return False
    return all(map(torch.equal, weights.chunks(one), weights.chunks(other)))


def check_finite(name: str, values: Tensor) -> None:
    """Refuses numbers that training could not go on from.

    Raises:
        ValueError: naming the tensor.
    """
    if not values.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite; take another copy of the model")


def load_folder(folder: Path) -> Decoder:
    """A whole decoder from a folder, in fp32 on the host.

    Raises:
        ValueError: an unsupported config, or weights that do not fit it.
    """
    import torch

    from models.decoder import Decoder

    try:
        shape, tokens = from_config(read_json(folder / "config.json"))
        model = Decoder(shape, tokens.eos_ids[0])
        with PretrainedWeights(folder) as weights, torch.no_grad():
            check_tensors(shape, weights)
            for name, parameter in model.named_parameters():
                values = weights.rows(name, 0, len(parameter))
                check_finite(name, values)
                parameter.copy_(values)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(folder)) else f"{folder}: {text}") from error
    return model


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        ValueError: it is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not a JSON object")
    return found
