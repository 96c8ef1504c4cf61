"""Attention on CPUs: documents of similar length in one bucket, causal, in blocks of queries, by batched products.

One loop norms and rotates queries and keys and copies them to their rows in the buckets. A block of queries is
multiplied with the keys up to its end only, so little more than half of the whole square is computed. Padding is after
a document's end, where the causal mask hides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.kernels.library import threads
from models.ops import require_kernels

BUCKETS = 8
"""Documents are padded to the lengths T / 8, 2 T / 8, ... T: few calls, little padding."""
BLOCK = 64
"""Minimum queries of a head in a block."""
MAX_SAVED_LENGTH = 1024
"""Documents up to this length save attention weights for the backward pass; for longer ones they are recomputed."""


@dataclass(frozen=True)
class Bucket:
    """Documents padded to one length, and the place of their rows in the buffer of all heads."""

    count: int
    width: int
    first: int
    """First row of the queries [blocks, count, keys, group, block], then keys and values [count, keys, width]."""

    @property
    def blocks(self) -> int:
        return block_count(self.width)


def block_count(width: int) -> int:
    """Equal blocks in a bucket of this width, each of BLOCK queries or a few more."""
    return next(n for n in range(max(1, width // BLOCK), 0, -1) if width % n == 0)


class BucketLayout:
    """The row of each head of each token of one batch in the buckets; created once for all layers.

    Args:
        positions: int64 [B, T] inside documents, 0 at their starts.
        queries, keys: number of query heads, and of key (and value) heads.
    """

    def __init__(self, positions: Tensor, queries: int, keys: int):
        self.queries, self.keys, self.group = queries, keys, queries // keys
        length = positions.shape[1]
        starts = (positions.flatten() == 0).nonzero().flatten()
        lengths = torch.diff(starts, append=torch.tensor([positions.numel()]))
        step = max(16, -(-length // BUCKETS))
        numbers = (lengths + step - 1) // step
        heads = queries + 2 * keys
        self.slots = torch.empty(positions.numel(), heads, dtype=torch.int64)
        self.buckets: list[Bucket] = []
        first = 0
        for number in numbers.unique().tolist():
            mine = numbers == number
            bucket = Bucket(int(mine.sum()), min(number * step, length), first)
            column = torch.arange(bucket.width)
            real = column < lengths[mine, None]
            document, place = real.nonzero(as_tuple=True)
            self.slots[starts[mine][document] + place] = self._rows(bucket, document, place)
            self.buckets.append(bucket)
            first += bucket.count * bucket.width * heads
        self.rows = first
        self.query_slots = self.slots[:, :queries].contiguous()
        self.padded = first != self.slots.numel()

    def _rows(self, bucket: Bucket, document: Tensor, place: Tensor) -> Tensor:
        """Rows of all heads [tokens, heads] of tokens, given by document of the bucket and place in it."""
        block = bucket.width // bucket.blocks
        number, inside = place // block, place % block
        head = torch.arange(self.queries)
        query = number * bucket.count + document
        query = ((query[:, None] * self.keys + head // self.group) * self.group + head % self.group) * block
        query = bucket.first + query + inside[:, None]
        key = (document[:, None] * self.keys + torch.arange(self.keys)) * bucket.width + place[:, None]
        size = bucket.count * bucket.width * self.keys
        key = key + bucket.first + size * self.group
        return torch.cat((query, key, key + size), dim=1)

    def new(self, like: Tensor, size: int) -> Tensor:
        """A buffer [rows, size] for all heads; padding is zero."""
        return like.new_zeros(self.rows, size) if self.padded else like.new_empty(self.rows, size)

    def parts(self, buffer: Tensor, bucket: Bucket) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [blocks, count * keys, group * block, D], keys and values [count * keys, width, D] in a buffer."""
        size = bucket.count * bucket.width * self.keys
        at = bucket.first + size * self.group
        q, k, v = buffer[bucket.first : at], buffer[at : at + size], buffer[at + size : at + 2 * size]
        pairs = bucket.count * self.keys
        rows = self.group * bucket.width // bucket.blocks
        return q.view(bucket.blocks, pairs, rows, -1), k.view(pairs, bucket.width, -1), v.view(pairs, bucket.width, -1)


class Norm(Protocol):
    """A norm of queries or keys."""

    weight: Any
    eps: float


def attend_bucketed(
    x: Tensor, q_norm: Norm | None, k_norm: Norm | None, rotation: tuple[Tensor, Tensor], layout: BucketLayout
) -> Tensor:
    """Causal attention inside documents.

    Args:
        x: projected queries, keys and values side by side [B, T, heads, D].
        q_norm, k_norm: norms over D of queries and keys, or none.
        rotation: cosine and sine, fp32 [B, T, 1, D / 2].

    Returns:
        Mixed values [B, T, queries * D].
    """
    query, key = (norm.weight.float() if norm else None for norm in (q_norm, k_norm))
    eps = q_norm.eps if q_norm else 0.0
    return _Attend.apply(x, query, key, *rotation, layout, eps)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        query: Tensor | None,
        key: Tensor | None,
        cosine: Tensor,
        sine: Tensor,
        layout: BucketLayout,
        eps: float,
    ) -> Tensor:
        x = x.contiguous()
        size, tokens = x.shape[-1], len(layout.slots)
        ctx.shape = (tokens, x.shape[2], size, layout.queries, layout.keys)
        buffer = layout.new(x, size)
        require_kernels(x)("spread_heads", *ctx.shape, x, query, key, eps, cosine, sine, layout.slots, buffer)
        mixed = x.new_empty(layout.rows, size)
        weights: list[Tensor] = []
        for bucket in layout.buckets:
            (q, k, v), (y, _, _) = layout.parts(buffer, bucket), layout.parts(mixed, bucket)
            for number in range(bucket.blocks):
                p, end = _weights(q[number], k, number, bucket)
                torch.bmm(p, v[:, :end], out=y[number])
                if bucket.width <= MAX_SAVED_LENGTH:
                    weights.append(p)
        slots = layout.query_slots
        out = x.new_empty(*x.shape[:2], layout.queries * size)
        require_kernels(x)("gather_rows", slots.numel(), size, mixed, slots, out)
        ctx.save_for_backward(x, query, key, cosine, sine, buffer, *weights)
        ctx.layout, ctx.eps = layout, eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, query, key, cosine, sine, buffer, *weights = ctx.saved_tensors
        layout, slots, size = ctx.layout, ctx.layout.query_slots, x.shape[-1]
        grad, saved_weights = layout.new(x, size), iter(weights)
        # The queries' rows first hold the gradient of the mixed values, which their own gradient then replaces.
        require_kernels(x)("scatter_rows", slots.numel(), size, grads[0].contiguous(), slots, grad)
        for bucket in layout.buckets:
            saved = [next(saved_weights) for _ in range(bucket.blocks)] if bucket.width <= MAX_SAVED_LENGTH else []
            _backward(layout.parts(buffer, bucket), layout.parts(grad, bucket), saved, bucket)
        grad_x = torch.empty_like(x)
        parts = torch.zeros(threads(), 2, size)
        require_kernels(x)(
            "spread_heads_backward",
            *ctx.shape,
            x,
            query,
            key,
            ctx.eps,
            cosine,
            sine,
            layout.slots,
            grad,
            grad_x,
            parts,
        )
        grad_query_norm, grad_key_norm = parts.sum(0) if query is not None else (None, None)
        return grad_x, grad_query_norm, grad_key_norm, None, None, None, None


def _weights(q: Tensor, k: Tensor, number: int, bucket: Bucket) -> tuple[Tensor, int]:
    """Attention weights of one block of queries [pairs, group * block, end] on the keys up to its end."""
    block = bucket.width // bucket.blocks
    end = (number + 1) * block
    p = torch.bmm(q, k[:, :end].mT)
    rows = p.shape[0] * p.shape[1]
    scratch = torch.empty(threads(), end)
    require_kernels(p)("causal_softmax", rows, end, end - block, block, q.shape[-1] ** -0.5, p, scratch)
    return p, end


def _backward(
    heads: tuple[Tensor, Tensor, Tensor],
    grad: tuple[Tensor, Tensor, Tensor],
    saved: list[Tensor],
    bucket: Bucket,
) -> None:
    """Fills the gradients of queries, keys and values; on entry the queries' rows hold that of the mixed values."""
    (q, k, v), (grad_q, grad_k, grad_v) = heads, grad
    block = bucket.width // bucket.blocks
    # Sums over blocks are fp32 in any number format; the last block sees all keys and so initializes them.
    sum_k, sum_v = (part if part.dtype == torch.float32 else part.float() for part in (grad_k, grad_v))
    for number in reversed(range(bucket.blocks)):
        p, end = (saved[number], (number + 1) * block) if saved else _weights(q[number], k, number, bucket)
        grad_y = grad_q[number]
        of_v = torch.bmm(p.mT, grad_y)
        score = torch.bmm(grad_y, v[:, :end].mT)
        rows = score.shape[0] * score.shape[1]
        require_kernels(p)("causal_softmax_backward", rows, end, end - block, block, q.shape[-1] ** -0.5, p, score)
        torch.bmm(score, k[:, :end], out=grad_q[number])
        of_k = torch.bmm(score.mT, q[number])
        if end == bucket.width:
            sum_k.copy_(of_k)
            sum_v.copy_(of_v)
        else:
            sum_k[:, :end] += of_k
            sum_v[:, :end] += of_v
    if sum_k is not grad_k:
        grad_k.copy_(sum_k)
        grad_v.copy_(sum_v)
