"""Causal attention inside documents, for rows that contain several.

A mask costs T^2 whatever the documents' lengths: on a CPU two fifths of a small model's step at T = 512. So on CPUs
`attention_cpu` groups documents of similar length, and on GPUs `attention_gpu` passes document boundaries to a kernel.
A mask is the fallback: without a C compiler, or in fp32 on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.attention_cpu import BucketLayout
from models.attention_gpu import VarlenAttention, supports_varlen
from models.kernels.library import library
from models.sizes import ModelConfig

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [B, T, H, D], k and v [B, T, K, D] -> [B, T, H, D]."""


def split_documents(tokens: Tensor, eos_id: int) -> tuple[Tensor, Tensor]:
    """Numbers the documents of each row and the positions inside them; an EOS belongs to the document that it ends.

    Args:
        tokens: int64 [B, T].

    Returns:
        `(documents, positions)`, both int64 [B, T]; positions restart at 0 in each document and in each row.
    """
    ends = tokens == eos_id
    documents = ends.cumsum(1) - ends.long()
    index = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    after_end = F.pad(ends[:, :-1], (1, 0))
    starts = torch.where(after_end, index, 0).cummax(1).values
    return documents, index - starts


def attention(documents: Tensor, positions: Tensor, config: ModelConfig, dtype: torch.dtype) -> Attend | BucketLayout:
    """The attention of one batch, created once for all layers, from the result of `split_documents`."""
    if positions.device.type == "cpu" and library(dtype):
        return BucketLayout(positions, config.heads, config.key_value_heads)
    if supports_varlen(positions.device, dtype, config.head_size):
        return VarlenAttention(positions)
    return _MaskedAttention(documents, dtype)


class _MaskedAttention:
    """One SDPA call with an additive mask [B, 1, T, T]; SDPA would convert a boolean mask in every layer."""

    def __init__(self, documents: Tensor, dtype: torch.dtype):
        length = documents.shape[1]
        allowed = documents[:, :, None] == documents[:, None, :]
        allowed &= torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
        mask = torch.zeros(allowed.shape, dtype=dtype, device=documents.device)
        self.mask = mask.masked_fill_(~allowed, float("-inf")).unsqueeze(1)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=q.shape[1] != k.shape[1])
        return y.transpose(1, 2)
