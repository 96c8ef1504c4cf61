"""GPU attention, as far as a CPU can test it: the kernel's arguments, and the result with a stand-in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import varlen

from models.attention import _MaskedAttention, split_documents
from models.attention_gpu import TOKENS_PER_DOCUMENT, VarlenAttention, supports_varlen
from tests.support import examples

EOS = 0


def _positions(seed: int, batch: int, length: int, ends: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 50, (batch, length), generator=generator)
    return split_documents(tokens.masked_fill(torch.rand(batch, length, generator=generator) < ends, EOS), EOS)


def _kernel(q: Tensor, k: Tensor, v: Tensor, begins: Tensor, ends: Tensor, *most: int, **options: Any) -> Tensor:
    """A stand-in for `varlen_attn` that computes one sequence at a time."""
    assert begins is ends and begins.dtype == torch.int32 and options["window_size"] == (-1, 0)
    parts = []
    for first, end in zip(begins.tolist()[:-1], begins.tolist()[1:], strict=True):
        assert end - first <= min(most)
        if end > first:
            a, b, c = (x[first:end].transpose(0, 1) for x in (q, k, v))
            y = F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=options["enable_gqa"])
            parts.append(y.transpose(0, 1))
    return torch.cat(parts)


@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 70), st.floats(0, 0.6), st.sampled_from([1, 2, 4]))
@examples(20)
def test_it_equals_a_mask_in_value_and_gradient(seed, batch, length, ends, keys):
    documents, positions = _positions(seed, batch, length, ends)
    torch.manual_seed(seed)
    q = torch.randn(batch, length, 4, 8, requires_grad=True)
    k, v = (torch.randn(batch, length, keys, 8, requires_grad=True) for _ in range(2))
    weights = torch.randn(batch, length, 4, 8)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varlen, "varlen_attn", _kernel)
        for attend in (_MaskedAttention(documents, torch.float32), VarlenAttention(positions)):
            y = attend(q, k, v)
            results.append([y, *torch.autograd.grad((y * weights).sum(), (q, k, v))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_cu_seqlens_keep_their_shape_until_documents_are_short():
    shapes = [len(VarlenAttention(_positions(seed, 4, 256, 0.003)[1]).cu_seqlens) for seed in range(5)]
    assert set(shapes) == {4 * 256 // TOKENS_PER_DOCUMENT + 1}
    short = VarlenAttention(_positions(0, 4, 256, 1.0)[1]).cu_seqlens
    assert short.tolist() == list(range(4 * 256 + 1))
    whole = VarlenAttention(_positions(0, 4, 256, 0.0)[1]).cu_seqlens
    assert whole.tolist() == [0, 256, 512, 768] + [1024] * 13


def test_the_arguments_fit_torch_s_kernel():
    """Without data, on the meta device: arguments, shapes and the backward pass of the real operation."""
    attend = VarlenAttention(_positions(0, 2, 64, 0.05)[1])
    attend.cu_seqlens = attend.cu_seqlens.to("meta")
    q = torch.empty(2, 64, 4, 16, dtype=torch.bfloat16, device="meta", requires_grad=True)
    k, v = (torch.empty(2, 64, 2, 16, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(2))
    y = attend(q, k, v)
    assert y.shape == q.shape and y.dtype == torch.bfloat16
    assert [g.shape for g in torch.autograd.grad(y.float().sum(), (q, k, v))] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize(
    ("device", "dtype", "head_size", "capability", "expected"),
    [
        ("cuda", torch.bfloat16, 128, (9, 0), True),
        ("cuda", torch.bfloat16, 64, (8, 0), True),
        ("cuda", torch.bfloat16, 64, (7, 5), False),
        ("cuda", torch.float32, 64, (9, 0), False),
        ("cuda", torch.bfloat16, 288, (9, 0), False),
        ("cpu", torch.bfloat16, 64, (9, 0), False),
    ],
)
def test_where_it_is_used(monkeypatch, device, dtype, head_size, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert supports_varlen(torch.device(device), dtype, head_size) == expected
