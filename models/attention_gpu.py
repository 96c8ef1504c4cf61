"""Attention on GPUs: documents one after the other, by FlashAttention's kernel for sequences of many lengths.

The kernel is told where documents begin and skips what crosses an end, where a mask would compute all T^2 of it.
Nothing here was run on a GPU yet: the tests hold placement, gradients and shapes against a stand-in for the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOKENS_A_SLOT = 64
"""Room for documents is kept for one in so many tokens, and for twice, four times ... as many where they are shorter:
the kernel's arguments keep their shape from batch to batch, and it starts few blocks for nothing."""


def usable(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether the kernel takes this: 16-bit formats on NVIDIA's Ampere and later, heads of up to 256."""
    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and head_size % 8 == 0
        and head_size <= 256
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


class Varlen:
    """The attention of one batch, made once for all layers.

    Args:
        positions: int64 [B, T] inside documents, 0 at their starts.
    """

    def __init__(self, positions: Tensor):
        tokens = positions.numel()
        starts = (positions.flatten() == 0).nonzero().flatten()  # waits for the device, once a forward pass
        room = -(-tokens // TOKENS_A_SLOT)
        while room < len(starts):
            room *= 2
        self.length = positions.shape[1]
        self.bounds = torch.full((room + 1,), tokens, dtype=torch.int32, device=positions.device)
        """Where documents begin, and at the end, as often as there is room, where the last one ends."""
        self.bounds[: len(starts)] = starts

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, D], k and v [B, T, K, D] -> [B, T, H, D]."""
        from torch.nn.attention.varlen import varlen_attn

        parts = (x.flatten(0, 1) for x in (q, k, v))
        grouped = q.shape[2] != k.shape[2]
        causal = (-1, 0)
        y = varlen_attn(
            *parts, self.bounds, self.bounds, self.length, self.length, window_size=causal, enable_gqa=grouped
        )
        assert isinstance(y, Tensor)
        return y.view_as(q)
