"""Matrix products with a weight, by the faster of two libraries on this processor.

PyTorch uses MKL for fp32 products and oneDNN for bf16. On a processor without bf16, oneDNN can compute fp32 too; on AMD
processors it is 1.2 to 1.5 times as fast as MKL for a decoder's products, except for the gradient of a weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Backend = Literal["torch", "onednn"]

_backend: Backend = "torch"


def set_backend(backend: Backend) -> None:
    """Sets the library for this process, as `torch.set_num_threads` does; "torch" where oneDNN is not available."""
    global _backend
    _backend = backend if torch.backends.mkldnn.is_available() else "torch"


def linear(x: Tensor, *weights: Tensor) -> Tensor:
    """x [..., inputs] times each weight [outputs, inputs], in x's number format, side by side [..., all outputs].

    One product for all: narrow ones do not occupy a processor, and their gradients would have to be summed.
    """
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    weight = weight.to(x.dtype)
    return _Linear.apply(x, weight) if _by_onednn(x) else F.linear(x, weight)


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a [n, k] @ b [m, k]^T, without gradient."""
    return _onednn(a, b) if _by_onednn(a) else a @ b.T


class WeightGradAccumulator:
    """The gradient of a weight [outputs, inputs], accumulated in fp32 over chunks of rows."""

    def __init__(self, weight: Tensor):
        self._dtype, self._flipped = weight.dtype, _by_onednn(weight)
        like = weight.T if self._flipped else weight
        self._sum = torch.zeros(like.shape, dtype=torch.float32, device=weight.device)

    def add(self, grad: Tensor, x: Tensor) -> None:
        """Adds grad [n, outputs]^T @ x [n, inputs]."""
        if self._flipped:  # oneDNN is fast for wide outputs, slow for many
            self._sum += _onednn(x.T, grad.T)
        elif grad.dtype == torch.float32:
            self._sum.addmm_(grad.T, x)
        else:
            self._sum += grad.T @ x

    def total(self) -> Tensor:
        """The sum, in the weight's number format."""
        return (self._sum.T.contiguous() if self._flipped else self._sum).to(self._dtype)


def faster_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    """The faster library on this machine. Only fp32 on a CPU has a choice: oneDNN on AMD processors, for which MKL has
    no kernels of its own.

    Decided by the processor's vendor and not by timing: two runs of one recipe on one machine must agree bit for bit.
    """
    if device.type != "cpu" or dtype != torch.float32:
        return "torch"
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return "torch"
    return "onednn" if "AuthenticAMD" in processor and torch.backends.mkldnn.is_available() else "torch"


def _by_onednn(x: Tensor) -> bool:
    return _backend == "onednn" and x.dtype == torch.float32 and x.device.type == "cpu"


def _onednn(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight^T; both may be transposed views. The operator is the one that PyTorch's compiler uses."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x.flatten(0, -2), weight).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        grad_x = _onednn(grad, weight.T).view_as(x) if ctx.needs_input_grad[0] else None
        grad_weight = grad.T @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight
