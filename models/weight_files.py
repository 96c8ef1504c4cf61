"""Writing a model's weights as stock SafeTensors files one tensor at a time, however large the model is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.huggingface import WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

MAX_FILE_BYTES = 5_000_000_000
"""Larger models are in several files with an index, as `save_pretrained` cuts them."""
_NAMES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}


@dataclass(frozen=True)
class WeightFile:
    """One file: which tensors it holds, in order."""

    name: str
    tensors: tuple[str, ...]


def plan_weight_files(
    shapes: Mapping[str, Sequence[int]], dtype: str, most: int = MAX_FILE_BYTES
) -> tuple[list[WeightFile], bytes | None]:
    """The files of a model, and the content of their index where there are several.

    Args:
        shapes: of each tensor by name.
        dtype: `float32` or `bfloat16`.
        most: bytes of tensors in a file, unless one alone has more.
    """
    item = _NAMES[dtype][1]
    groups: list[list[str]] = [[]]
    held = 0
    for name in sorted(shapes):  # as SafeTensors orders tensors of one format
        size = item * math.prod(shapes[name])
        if groups[-1] and held + size > most:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    if len(groups) == 1:
        return [WeightFile(WEIGHTS, tuple(groups[0]))], None
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    files = [WeightFile(name, tuple(group)) for name, group in zip(names, groups, strict=True)]
    total = item * sum(math.prod(shape) for shape in shapes.values())
    placed = {tensor: file.name for file in files for tensor in file.tensors}
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    return files, json.dumps(index, indent=2).encode() + b"\n"


def write_weight_file(
    file: WeightFile,
    shapes: Mapping[str, Sequence[int]],
    dtype: str,
    read: Callable[[str], Tensor],
    path: Path,
) -> int:
    """Writes one file, byte for byte what `safetensors.torch.save_file` writes. Returns the most bytes that were held.

    Args:
        read: gives a tensor by name, on the CPU; one is held at a time.

    Raises:
        OSError: the file cannot be written.
    """
    most = 0
    label, item = _NAMES[dtype]
    described = ((name, label, shapes[name], item * math.prod(shapes[name])) for name in file.tensors)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as output:
        output.write(safetensors_header(described))
        for name in file.tensors:
            content, held = _encoded(read(name), dtype)
            most = max(most, held)
            while content:
                content = content[output.write(content) :]
    return most


def safetensors_header(tensors: Iterable[tuple[str, str, Sequence[int], int]], alignment: int = 8) -> bytes:
    """The beginning of a SafeTensors file, up to the first number.

    Args:
        tensors: name, number format by SafeTensors' name, shape and bytes of each, in their order in the file.
        alignment: what the first number's place is a multiple of.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, dtype, shape, size in tensors:
        entries[name] = {"dtype": dtype, "shape": [*shape], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % alignment)
    return len(text).to_bytes(8, "little") + text


def _encoded(tensor: Tensor, dtype: str) -> tuple[memoryview, int]:
    """A tensor's bytes in a number format, and the bytes held for them."""
    import torch

    converted = tensor.to(getattr(torch, dtype)).contiguous()
    held = tensor.numel() * tensor.element_size()
    if converted.data_ptr() != tensor.data_ptr():
        held += converted.numel() * converted.element_size()
    return memoryview(converted.view(-1).view(torch.uint8).numpy()).cast("B"), held
