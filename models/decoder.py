"""A decoder in plain PyTorch, written to be read; parallelism and number formats are applied from outside.

RMSNorm before each block, grouped-query attention, rotary positions (rotate-half), SwiGLU. With normed queries and keys
it is Hugging Face's `Qwen3ForCausalLM`, with biases of queries, keys and values `Qwen2ForCausalLM`, without both
`LlamaForCausalLM` and `MistralForCausalLM`; module names are the same, so that state dicts are interchangeable.

Several documents share a sequence: attention never crosses an end-of-text token and positions restart after it, so
each document is computed independently.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import Attend, attention, split_documents
from models.attention_cpu import BucketLayout, attend_bucketed
from models.kernels.library import kernels
from models.linear import Linear, project, project_together
from models.loss import linear_cross_entropy
from models.matmul import linear
from models.ops import add_rms_norm, swiglu
from models.rope import frequencies, host_tables
from models.sizes import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.add_norm(x, None)[1]

    def add_norm(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """`(x + residual, norm(x + residual))`; None adds nothing. One pass over memory where kernels are compiled."""
        return add_rms_norm(x, residual, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        size, queries, keys = config.hidden_size, config.heads * config.head_size, config.key_value_heads
        self.head_size = config.head_size
        self.q_proj = Linear(size, queries, config.qkv_bias)
        self.k_proj = Linear(size, keys * config.head_size, config.qkv_bias)
        self.v_proj = Linear(size, keys * config.head_size, config.qkv_bias)
        self.o_proj = Linear(queries, size)
        self.q_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend | BucketLayout) -> Tensor:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if isinstance(attend, BucketLayout):
            heads = project_together(x, *projections).unflatten(-1, (-1, self.head_size))
            mixed = attend_bucketed(heads, self.q_norm, self.k_norm, rotation, attend)
        else:
            each = (*x.shape[:-1], -1, self.head_size)  # [B, T, heads, head_size]
            q, k, v = (projected.view(each) for projected in project(x, *projections))
            if self.q_norm and self.k_norm:
                q, k = self.q_norm(q), self.k_norm(k)
            mixed = attend(rotate(q, rotation), rotate(k, rotation), v).flatten(2)
        return self.o_proj(mixed)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        if kernels(x):
            return self.down_proj(swiglu(project_together(x, self.gate_proj, self.up_proj)))
        gate, up = project(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x: Tensor, residual: Tensor | None, rotation: tuple[Tensor, Tensor], attend: Attend | BucketLayout
    ) -> tuple[Tensor, Tensor]:
        """Takes and returns the residual stream and a summand that is not added yet: the next norm adds it."""
        x, normed = self.input_layernorm.add_norm(x, residual)
        x, normed = self.post_attention_layernorm.add_norm(x, self.self_attn(normed, rotation, attend))
        return x, self.mlp(normed)


class Body(nn.Module):
    """Everything except the head; named `model` in the state dict."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        # `nn.Embedding(...)` would initialize it, which on the meta device loads PyTorch's compiler.
        unset = torch.empty(config.vocabulary_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(unset, freeze=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class Decoder(nn.Module):
    """Maps token ids to the summed loss of their targets, or to logits.

    `dtype` is the number format of activations. Parameters are allocated but not initialized, see
    `models/initialize.py`.
    """

    def __init__(self, config: ModelConfig, eos_id: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.config, self.eos_id, self.dtype = config, eos_id, dtype
        self.model = Body(config)
        if not config.tied:
            self.lm_head = Linear(config.hidden_size, config.vocabulary_size)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, scale: float = 1.0, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Runs the model.

        Args:
            tokens: int64 [B, T].
            targets: int64 [B, T], IGNORE_INDEX at positions without loss; None: return logits.
            scale: factor of the differentiable loss, 1 / (valid targets of the global batch).
            z_loss: weight of the squared log-partition (Chowdhery et al. 2022, PaLM, section 5).

        Returns:
            Without targets the logits [B, T, V]; with them `(loss, nats)`: the scaled, differentiable loss, and the
            cross-entropy of every target, fp32 [B, T], zero for IGNORE_INDEX, without gradient.
        """
        documents, positions = split_documents(tokens, self.eos_id)
        x, residual = self.model.embed_tokens(tokens).to(self.dtype), None
        rotation = rotary(positions, self.config)
        attend = attention(documents, positions, self.config, x.dtype)
        for layer in self.model.layers:
            x, residual = layer(x, residual, rotation, attend)
        x, normed = self.model.norm.add_norm(x, residual)
        weight = self.model.embed_tokens.weight if self.config.tied else self.lm_head.weight
        if targets is None:
            return linear(normed, weight)
        loss, nats = linear_cross_entropy(normed.flatten(0, 1), weight.to(x.dtype), targets.flatten(), scale, z_loss)
        return loss, nats.view_as(targets)


def rotary(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each fp32 [B, T, 1, head_size / 2], of the rotary embedding.

    No buffer of the module: meta-device construction would silently leave it zero.

    Args:
        positions: int64 [B, T], each less than T.
    """
    if positions.device.type == "cpu":
        length = positions.shape[1]
        cosine, sine = host_tables(config.head_size, config.rope_theta, config.rope_scaling, length)
        return cosine[positions].unsqueeze(2), sine[positions].unsqueeze(2)
    frequency, factor = frequencies(config.head_size, config.rope_theta, config.rope_scaling)
    angles = positions.float()[:, :, None, None] * frequency.to(positions.device)
    return angles.cos() * factor, angles.sin() * factor


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (i, i + head_size / 2) of x [B, T, heads, head_size]: Hugging Face's rotate-half form."""
    cos, sin = (angles.to(x.dtype) for angles in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
