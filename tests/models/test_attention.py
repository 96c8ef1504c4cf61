"""Attention inside documents: by blocks on a CPU and by a mask, and that nothing crosses an EOS."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import attention_cpu
from models.attention import _MaskedAttention, split_documents
from models.attention_cpu import BucketLayout, attend_bucketed
from models.decoder import RMSNorm, rotate
from tests.models.threads import threads
from tests.support import examples

EOS = 0


def _rows(seed: int, batch: int, length: int, ends: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 50, (batch, length), generator=generator)
    return tokens.masked_fill(torch.rand(batch, length, generator=generator) < ends, EOS)


@given(st.integers(0, 999), st.integers(1, 3), st.integers(1, 40), st.floats(0, 1))
@examples(40)
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


@given(
    st.integers(0, 999),
    st.integers(1, 3),
    st.integers(1, 200),
    st.floats(0, 0.3),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
)
@examples(40)
def test_placed_equals_masked_in_value_and_gradient(seed, batch, length, ends, keys, normed, kept):
    documents, positions = split_documents(_rows(seed, batch, length, ends), EOS)
    torch.manual_seed(seed)
    heads = torch.randn(batch, length, 4 + 2 * keys, 8, requires_grad=True)
    norms = [RMSNorm(8, 1e-6) for _ in range(2)]
    for norm in norms:
        norm.weight.data.uniform_(0.5, 1.5)
    angles = torch.randn(batch, length, 1, 4)
    rotation = (angles.cos(), angles.sin())
    q, k, v = heads.split((4, keys, keys), dim=2)
    if normed:
        q, k = norms[0](q), norms[1](k)
    masked = _MaskedAttention(documents, torch.float32)(rotate(q, rotation), rotate(k, rotation), v).flatten(2)
    layout = BucketLayout(positions, 4, keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_cpu, "MAX_SAVED_LENGTH", 1 << 30 if kept else 0)
        placed = attend_bucketed(heads, *(norms if normed else (None, None)), rotation, layout)
        wanted = [heads, *(norm.weight for norm in norms if normed)]
        weights = torch.randn_like(placed)
        ours = torch.autograd.grad((placed * weights).sum(), wanted)
    torch.testing.assert_close(placed, masked, atol=1e-5, rtol=1e-4)
    for a, b in zip(ours, torch.autograd.grad((masked * weights).sum(), wanted), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 300), st.floats(0, 0.4), st.sampled_from([1, 3]))
@examples(30)
def test_every_head_of_every_token_has_a_row_of_its_own(seed, batch, length, ends, keys):
    _, positions = split_documents(_rows(seed, batch, length, ends), EOS)
    layout = BucketLayout(positions, 3, keys)
    rows = layout.slots.flatten()
    assert len(rows.unique()) == len(rows) == batch * length * (3 + 2 * keys)
    assert rows.min() >= 0 and rows.max() < layout.rows
    assert layout.rows == sum(bucket.count * bucket.width for bucket in layout.buckets) * (3 + 2 * keys)
    assert layout.padded == (layout.rows > len(rows))


def test_bf16_stays_close_to_fp32():
    torch.manual_seed(0)
    _, positions = split_documents(_rows(0, 2, 96, 0.05), EOS)
    layout = BucketLayout(positions, 4, 2)
    rotation = (torch.ones(2, 96, 1, 4), torch.zeros(2, 96, 1, 4))
    heads = torch.randn(2, 96, 8, 8, requires_grad=True)
    exact = attend_bucketed(heads, None, None, rotation, layout)
    rough = attend_bucketed(heads.bfloat16(), None, None, rotation, layout)
    (a,), (b,) = (torch.autograd.grad(y.float().square().sum(), heads) for y in (exact, rough))
    torch.testing.assert_close(rough.float(), exact, atol=0.03, rtol=0.03)
    assert (a - b).norm() < 0.02 * a.norm()
    assert not torch.equal(a, b)


def test_two_threads_come_to_what_one_does():
    """Norms and rotation in the compiled loop, which shares the rows out."""
    found = []
    for count in (1, 2):
        torch.manual_seed(0)
        _, positions = split_documents(_rows(0, 2, 96, 0.05), EOS)
        angles = torch.randn(2, 96, 1, 4)
        heads, norms = torch.randn(2, 96, 8, 8, requires_grad=True), [RMSNorm(8, 1e-6) for _ in range(2)]
        for norm in norms:
            norm.weight.data.uniform_(0.5, 1.5)
        with threads(count):
            y = attend_bucketed(heads, *norms, (angles.cos(), angles.sin()), BucketLayout(positions, 4, 2))
            found.append([y, *torch.autograd.grad(y.square().sum(), [heads, *(norm.weight for norm in norms)])])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)
