"""Attention inside documents: the two ways of computing it, and that nothing crosses an EOS."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import _causal, _causal_products, _Gathered, _Masked, split_documents

EOS = 0


def _rows(seed: int, batch: int, length: int, ends: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 50, (batch, length), generator=generator)
    return tokens.masked_fill(torch.rand(batch, length, generator=generator) < ends, EOS)


@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 40), st.floats(0, 1))
@settings(max_examples=40)
def test_documents_and_positions_by_hand(seed, batch, length, ends):
    tokens = _rows(seed, batch, length, ends)
    documents, positions = split_documents(tokens, EOS)
    for row in range(batch):
        document = position = 0
        for place in range(length):
            assert (documents[row, place], positions[row, place]) == (document, position)
            position += 1
            if tokens[row, place] == EOS:
                document, position = document + 1, 0


@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 70), st.floats(0, 0.6), st.sampled_from([1, 2, 4]))
@settings(max_examples=30)
def test_gathered_equals_masked_in_value_and_gradient(seed, batch, length, ends, keys):
    documents, positions = split_documents(_rows(seed, batch, length, ends), EOS)
    torch.manual_seed(seed)
    q = torch.randn(batch, length, 4, 8, requires_grad=True)
    k, v = (torch.randn(batch, length, keys, 8, requires_grad=True) for _ in range(2))
    weights = torch.randn(batch, length, 4, 8)
    results = []
    for attend in (_Masked(documents, torch.float32), _Gathered(positions)):
        y = attend(q, k, v)
        results.append([y, *torch.autograd.grad((y * weights).sum(), (q, k, v))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_products_equal_torch_s_kernel(keys):
    torch.manual_seed(keys)
    q, k, v = torch.randn(3, 17, 4, 8), torch.randn(3, 17, keys, 8), torch.randn(3, 17, keys, 8)
    torch.testing.assert_close(_causal_products(q, k, v), _causal(q, k, v), atol=1e-5, rtol=1e-4)
