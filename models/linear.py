"""Linear layers, alone or several of one input, with the low-rank adapters that they may have (`models/lora.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.matmul import linear


class Linear(nn.Module):
    """A linear layer in the number format of its input.

    The weight is cast where it is used: a no-op under FSDP's mixed precision; without FSDP the same arithmetic, with
    fp32 master weights and gradients.
    """

    lora_A: Linear | None
    lora_B: Linear | None
    scaling: float
    """Factor of the adapter's output, `lora_B(lora_A(x))`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.lora_A = self.lora_B = None
        self.scaling = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return project_together(x, self)

    def add_adapter(self, rank: int, scaling: float) -> None:
        """Adds an adapter, allocated but not initialized; the layer's own parameters stay as they are."""
        outputs, inputs = self.weight.shape
        self.lora_A, self.lora_B = Linear(inputs, rank), Linear(rank, outputs)
        self.scaling = scaling


def project_together(x: Tensor, *layers: Linear) -> Tensor:
    """The outputs of layers side by side [..., all outputs], biases and adapters included, by one product.

    Fast on CPUs, where narrow products do not occupy a processor. Adapters, all of one rank and factor, add two
    products however many there are.
    """
    y = linear(x, *(layer.weight for layer in layers))
    biases = [layer.bias for layer in layers if layer.bias is not None]
    if biases:
        y = y + (biases[0] if len(biases) == 1 else torch.cat(biases)).to(y.dtype)
    adapted = [layer for layer in layers if layer.lora_A is not None]
    if not adapted:
        return y
    if len(layers) == 1:
        return _add_adapter(y, _inner(x, adapted), layers[0])
    none = [layer.weight.new_empty(len(layer.weight), 0) for layer in layers]
    outer = [b if layer.lora_B is None else layer.lora_B.weight for layer, b in zip(layers, none, strict=True)]
    return _add_product(y, _inner(x, adapted), torch.block_diag(*outer), adapted[0].scaling)


def project(x: Tensor, *layers: Linear) -> list[Tensor]:
    """The outputs of layers of one input, biases and adapters included, each weight by a product of its own.

    Fast on GPUs, where concatenating the weights would cost more than it saves. The first factors of adapters, which
    are narrow and all of one rank, are one product.
    """
    outputs = [linear(x, layer.weight) for layer in layers]
    outputs = [
        y if layer.bias is None else y + layer.bias.to(y.dtype) for y, layer in zip(outputs, layers, strict=True)
    ]
    adapted = [layer for layer in layers if layer.lora_A is not None]
    if not adapted:
        return outputs
    inner = iter(_inner(x, adapted).chunk(len(adapted), -1))
    return [
        y if layer.lora_A is None else _add_adapter(y, next(inner), layer)
        for y, layer in zip(outputs, layers, strict=True)
    ]


def _inner(x: Tensor, adapted: Sequence[Linear]) -> Tensor:
    """x times the first factor of each adapter, side by side [..., layers x rank]."""
    return linear(x, *(layer.lora_A.weight for layer in adapted if layer.lora_A is not None))


def _add_adapter(y: Tensor, inner: Tensor, layer: Linear) -> Tensor:
    assert layer.lora_B is not None
    return _add_product(y, inner, layer.lora_B.weight, layer.scaling)


def _add_product(y: Tensor, inner: Tensor, outer: Tensor, scaling: float) -> Tensor:
    """y [..., outputs] + scaling x inner [..., k] @ outer [outputs, k]^T."""
    flat = torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), outer.T.to(y.dtype), alpha=scaling)
    return flat.view_as(y)
