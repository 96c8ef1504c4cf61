"""Matrix products by both libraries: equal values and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from models import matmul
from models.matmul import WeightGradAccumulator, faster_backend, linear, times_transposed


@pytest.fixture(params=["torch", "onednn"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    before = matmul._backend
    matmul.set_backend(request.param)
    assert matmul._backend == request.param
    yield
    matmul.set_backend(before)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 64)])
def test_concatenated_weights(shape):
    torch.manual_seed(0)
    x = torch.randn(*shape, 12, requires_grad=True)
    weights = [torch.randn(outputs, 12, requires_grad=True) for outputs in (8, 1, 20)]
    ours, plain = linear(x, *weights), torch.cat([x @ weight.T for weight in weights], -1)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    factor = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((ours * factor).sum(), (x, *weights)),
        torch.autograd.grad((plain * factor).sum(), (x, *weights)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_weight_is_cast_to_the_format_of_the_input():
    x, weight = torch.randn(3, 8, dtype=torch.bfloat16), torch.randn(4, 8, requires_grad=True)
    y = linear(x, weight)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32


def test_transposed_views():
    torch.manual_seed(0)
    a, b = torch.randn(6, 10), torch.randn(10, 7)
    torch.testing.assert_close(times_transposed(a, b.T), a @ b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_weight_is_accumulated_in_fp32(dtype):
    torch.manual_seed(0)
    total = WeightGradAccumulator(torch.empty(30, 6, dtype=dtype))
    parts = [(torch.randn(9, 30, dtype=dtype), torch.randn(9, 6, dtype=dtype)) for _ in range(50)]
    for grad, x in parts:
        total.add(grad, x)
    exact = sum(grad.double().T @ x.double() for grad, x in parts)
    found = total.total()
    assert found.dtype == dtype and found.shape == (30, 6) and found.is_contiguous()
    assert (found.double() - exact).norm() < (1e-6 if dtype == torch.float32 else 5e-3) * exact.norm()


def test_the_faster_backend_is_chosen_without_timing():
    here = torch.device("cpu"), torch.float32
    assert faster_backend(*here) in ("torch", "onednn")
    assert len({faster_backend(*here) for _ in range(3)}) == 1
    assert faster_backend(torch.device("cpu"), torch.bfloat16) == "torch"
    assert faster_backend(torch.device("cuda"), torch.float32) == "torch"
