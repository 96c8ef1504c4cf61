"""A decoder's element-wise operations: compiled loops on CPUs, else PyTorch's operators."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.library import Library, kernels, threads


def add_rms_norm(x: Tensor, y: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`(x + y, norm(x + y))`, or `(x, norm(x))` without y. RMSNorm over the last axis (Zhang and Sennrich 2019)."""
    if kernels(x):
        return _AddRMSNorm.apply(x, y, weight.float(), eps)
    x = x if y is None else x + y
    return x, F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


def swiglu(gate_up: Tensor) -> Tensor:
    """SwiGLU without its products: silu(gate) * up of both side by side [..., 2 F] (Shazeer 2020)."""
    if kernels(gate_up):
        return _SwiGLU.apply(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def require_kernels(x: Tensor) -> Library:
    """The compiled loops for x, where `kernels` has already reported that they exist."""
    loops = kernels(x)
    assert loops is not None
    return loops


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x, y = x.contiguous(), y if y is None else y.contiguous()
        d = x.shape[-1]
        rows = x.numel() // d
        total = x if y is None else torch.empty_like(x)
        out, root = torch.empty_like(x), torch.empty(rows, dtype=torch.float32)
        require_kernels(x)("add_rms_norm", rows, d, x, y, weight, eps, total, out, root)
        ctx.save_for_backward(total, weight, root)
        ctx.has_residual = y is not None
        return total, out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        total, weight, root = ctx.saved_tensors
        grad_total, grad = grads[0].contiguous(), grads[1].contiguous()
        d = total.shape[-1]
        grad_x = torch.empty_like(total)
        parts = torch.zeros(threads(), d)
        require_kernels(total)(
            "add_rms_norm_backward", len(root), d, total, weight, root, grad, grad_total, grad_x, parts
        )
        grad_weight = parts.sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_x if ctx.has_residual else None, grad_weight, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        require_kernels(x)("swiglu", out.numel() // width, width, x, out)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        grad, grad_x = grads[0].contiguous(), torch.empty_like(x)
        width = grad.shape[-1]
        require_kernels(x)("swiglu_backward", grad.numel() // width, width, x, grad, grad_x)
        return grad_x
