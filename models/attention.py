"""Causal attention inside documents, for rows that hold several.

Accelerators take a mask, which costs T^2 whatever the documents' lengths. On a CPU that is two fifths of a small
model's step at T = 512, so there the documents are gathered into batches of like length, each an ordinary causal
attention, and put back. In bf16 these are plain matrix products: torch's fused CPU kernel does not use the processor's
bf16 products and took 43 ms forward and backward where products take 13 (16 documents of 256 tokens, 4 heads of 64,
one core).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [B, T, H, D], k and v [B, T, K, D] -> [B, T, H, D]."""

BUCKETS = 8
"""Lengths that documents are padded to are T / 8, 2 T / 8, ... T: few calls, little padding."""


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


def attention(documents: Tensor, positions: Tensor, dtype: torch.dtype) -> Attend:
    """The attention of one batch, made once for all layers, from what `split_documents` returns."""
    return _Gathered(positions) if documents.device.type == "cpu" else _Masked(documents, dtype)


class _Masked:
    """One call with an additive mask [B, 1, T, T]; SDPA would turn a boolean one into this in every layer."""

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


class _Gathered:
    """One causal call a bucket of documents. Padding stands after a document's end, where causality hides it."""

    def __init__(self, positions: Tensor):
        length = positions.shape[1]
        starts = (positions.flatten() == 0).nonzero().flatten()
        lengths = torch.diff(starts, append=torch.tensor([positions.numel()]))
        step = max(16, -(-length // BUCKETS))
        buckets = (lengths + step - 1) // step
        self.shapes: list[tuple[int, int]] = []
        gather, place = [], torch.empty(positions.numel(), dtype=torch.long)
        offset = 0
        for bucket in buckets.unique().tolist():
            mine = buckets == bucket
            width = min(bucket * step, length)
            column = torch.arange(width)
            token = starts[mine, None] + column
            real = column < lengths[mine, None]
            place[token[real]] = offset + real.flatten().nonzero().flatten()
            gather.append(torch.where(real, token, -1).flatten())
            self.shapes.append((int(mine.sum()), width))
            offset += token.numel()
        slots = torch.cat(gather)
        self.padding = (slots < 0).nonzero().flatten()
        self.slots, self.place = slots.clamp_(min=0), place

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [_Gather.apply(x.flatten(0, 1), self.slots, self.place, self.padding) for x in (q, k, v)]
        out, offset = [], 0
        for count, width in self.shapes:
            rows = slice(offset, offset + count * width)
            a, b, c = (x[rows].view(count, width, *x.shape[1:]) for x in parts)
            y = _causal_products(a, b, c) if q.dtype == torch.bfloat16 else _causal(a, b, c)
            out.append(y.flatten(0, 1))
            offset += count * width
        return _Return.apply(torch.cat(out), self.slots, self.place, self.padding).view_as(q)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [B, T, H, D] by torch's own kernel."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return y.transpose(1, 2)


def _causal_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by batched products, the G queries heads of a key head as G T rows of one product."""
    batch, length, heads, size = q.shape
    keys = k.shape[2]
    group = heads // keys
    q = q.view(batch, length, keys, group, size).permute(0, 2, 3, 1, 4).reshape(batch * keys, group * length, size)
    k, v = (x.transpose(1, 2).reshape(batch * keys, length, size) for x in (k, v))
    mask = torch.full((length, length), float("-inf"), dtype=q.dtype).triu_(1).repeat(group, 1)
    scores = torch.baddbmm(mask.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=size**-0.5)
    y = torch.softmax(scores, -1) @ v
    return y.view(batch, keys, group, length, size).permute(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


class _Gather(torch.autograd.Function):
    """Tokens [N, ...] to padded slots [M, ...]. Each token has one slot, so that backward is a gather too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, place: Tensor, padding: Tensor) -> Tensor:
        ctx.place = place
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        return grads[0].index_select(0, ctx.place), None, None, None


class _Return(torch.autograd.Function):
    """Padded slots [M, ...] to tokens [N, ...]. In backward padding gets zero: its queries see real keys."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, slots: Tensor, place: Tensor, padding: Tensor) -> Tensor:
        ctx.slots, ctx.padding = slots, padding
        return y.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        return grads[0].index_select(0, ctx.slots).index_fill_(0, ctx.padding, 0.0), None, None, None
