"""Linear layers, alone or several of one input, with the low-rank adapters that they may have (`models/lora.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

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

    Fast on CPUs, where narrow products do not occupy a processor. The first factors of adapters, all of one rank, are
    one product too; the second ones add to their layer's columns.
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
    ends = [0, *accumulate(len(layer.weight) for layer in layers)]
    columns = [range(*ends[n : n + 2]) for n, layer in enumerate(layers) if layer.lora_A is not None]
    outer = [layer.lora_B.weight.to(y.dtype) for layer in adapted if layer.lora_B is not None]
    return _AddProducts.apply(y, _inner(x, adapted), adapted[0].scaling, columns, *outer)


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
    """y [..., outputs] + scaling x inner [..., rank] @ B^T."""
    assert layer.lora_B is not None
    outer = layer.lora_B.weight.to(y.dtype)
    return torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), outer.T, alpha=layer.scaling).view_as(y)


class _AddProducts(torch.autograd.Function):
    """y [..., outputs] with scaling x inner [..., n x rank] @ B^T added to the columns of each of n layers, in one copy
    of y."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, inner: Tensor, scaling: float, columns: Sequence[range], *outer: Tensor) -> Tensor:
        parts = inner.flatten(0, -2).chunk(len(outer), -1)
        total = y.flatten(0, -2).clone()
        for span, part, b in zip(columns, parts, outer, strict=True):
            total[:, span.start : span.stop].addmm_(part, b.T, alpha=scaling)
        ctx.save_for_backward(inner, *outer)
        ctx.scaling, ctx.columns = scaling, columns
        return total.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        inner, *outer = ctx.saved_tensors
        grad, grad_inner = grads[0].flatten(0, -2), torch.empty_like(inner)
        parts, grad_parts = (x.flatten(0, -2).chunk(len(outer), -1) for x in (inner, grad_inner))
        grad_outer = []
        for span, part, grad_part, b in zip(ctx.columns, parts, grad_parts, outer, strict=True):
            mine = grad[:, span.start : span.stop]
            torch.mm(mine, b, out=grad_part)
            grad_outer.append((mine.T @ part).mul_(ctx.scaling))
        return grads[0], grad_inner.mul_(ctx.scaling), None, None, *grad_outer
