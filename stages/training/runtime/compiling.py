"""`torch.compile` for the layers, on GPUs; on a CPU `models/kernels` does its work, in two seconds and once a machine.

Each layer is compiled by itself, as in torchtitan: they are alike, so that one compilation does for all, and FSDP's
hooks, which stay outside of what is compiled, gather a layer's weights around it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch

from models.decoder import Decoder
from stages.store.errors import ConfigError

Compile = Literal["auto", "on", "off"]


def wants_compiler(wanted: Compile, device: torch.device) -> bool:
    """Whether to compile layers: where the config says so, or, with `auto`, on a GPU whose compiler is installed.

    Raises:
        ConfigError: it is asked for where it cannot be had.
    """
    if device.type != "cuda":
        if wanted == "on":
            raise ConfigError(
                "training.parallelism.compile is on, and this is not a GPU; on a CPU compiled loops of our own do that "
                "work: leave it at auto"
            )
        return False
    installed = find_spec("triton") is not None
    if wanted == "on" and not installed:
        raise ConfigError("training.parallelism.compile is on, and triton is not installed, which compiles for GPUs")
    return installed and wanted != "off"


def compile_layers(model: Decoder, backend: str = "inductor") -> None:
    """Has every layer compiled, by a backend of `torch.compile`, when it is first called. Names stay."""
    for layer in model.model.layers:
        layer.compile(backend=backend)
