"""A rival where transformers is not installed: a plain Qwen3 of PyTorch's own parts.

Nothing of Headwater's is in it but the numbers of a shape.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainModel(nn.Module):
    """Qwen3: tokens and targets [n, T] to their mean cross-entropy.

    Args:
        shape: a `models.sizes.ModelConfig`.
        length: T.
    """

    def __init__(self, shape: Any, length: int):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.norm_eps)
        self.head = nn.Linear(shape.hidden_size, shape.vocabulary_size, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        if shape.tied:
            self.head.weight = self.embedding.weight
        steps = torch.arange(0, shape.head_size, 2) / shape.head_size
        angles = torch.outer(torch.arange(length), shape.rope_theta**-steps).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos.to(x.dtype), self.sin.to(x.dtype))
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


class _Layer(nn.Module):
    def __init__(self, shape: Any):
        super().__init__()
        width, size = shape.hidden_size, shape.head_size
        self.heads, self.key_heads, self.size = shape.heads, shape.key_value_heads, size
        self.before, self.after = (nn.RMSNorm(width, eps=shape.norm_eps) for _ in range(2))
        self.of_queries, self.of_keys = (nn.RMSNorm(size, eps=shape.norm_eps) for _ in range(2))
        self.mixed = nn.Linear(width, (self.heads + 2 * self.key_heads) * size, bias=False)
        self.out = nn.Linear(self.heads * size, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, length, _ = x.shape
        heads = self.mixed(self.before(x)).view(n, length, -1, self.size).transpose(1, 2)
        q, k, v = heads.split([self.heads, self.key_heads, self.key_heads], 1)
        q, k = (_rotated(norm(part), cos, sin) for norm, part in ((self.of_queries, q), (self.of_keys, k)))
        attended = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, -1))
        gate, up = self.gate_up(self.after(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
