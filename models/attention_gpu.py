"""Attention on GPUs: documents concatenated, by FlashAttention's kernel for sequences of variable length.

The kernel takes the document boundaries and skips all pairs across them, where a mask would compute all T^2.
Not run on a GPU yet: the tests compare boundaries, gradients and shapes with a stand-in for the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOKENS_PER_DOCUMENT = 64
"""The boundary list has space for one document per this many tokens, doubled until all fit: the kernel's arguments keep
their shape from batch to batch, and few of its blocks are started without work."""


def supports_varlen(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether the kernel supports this: 16-bit formats on NVIDIA Ampere and later, head sizes up to 256."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class VarlenAttention:
    """The attention of one batch, created once for all layers.

    Args:
        positions: int64 [B, T] inside documents, 0 at their starts.
    """

    def __init__(self, positions: Tensor):
        tokens = positions.numel()
        starts = (positions.flatten() == 0).nonzero().flatten()  # synchronizes with the device, once per forward pass
        capacity = -(-tokens // TOKENS_PER_DOCUMENT)
        while capacity < len(starts):
            capacity *= 2
        self.length = positions.shape[1]
        self.cu_seqlens = torch.full((capacity + 1,), tokens, dtype=torch.int32, device=positions.device)
        """Starts of the documents; the remaining entries are the end of the last one."""
        self.cu_seqlens[: len(starts)] = starts

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, D], k and v [B, T, K, D] -> [B, T, H, D]."""
        from torch.nn.attention.varlen import varlen_attn

        parts = (x.flatten(0, 1) for x in (q, k, v))
        grouped = q.shape[2] != k.shape[2]
        causal = (-1, 0)
        y = varlen_attn(
            *parts, self.cu_seqlens, self.cu_seqlens, self.length, self.length, window_size=causal, enable_gqa=grouped
        )
        assert isinstance(y, Tensor)
        return y.view_as(q)
