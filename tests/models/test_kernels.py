"""The compiled loops beside PyTorch's own operators, in both number formats."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels import library as library_module
from models.kernels.library import OFF, library, unavailable_reason
from models.matmul import linear
from models.ops import add_rms_norm, swiglu

FORMATS = (torch.float32, torch.bfloat16)

pytestmark = pytest.mark.usefixtures("two_threads")


def _value_and_gradients(f: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    y = f(*inputs)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    return [y.detach().float(), *(g.float() for g in torch.autograd.grad((y.float() * weights).sum(), inputs))]


def _assert_close(ours: list[Tensor], exact: list[Tensor], dtype: torch.dtype) -> None:
    for a, b in zip(ours, exact, strict=True):
        assert (a - b).norm() <= (1e-6 if dtype == torch.float32 else 8e-3) * b.norm()


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 24), (3, 40, 256)])
def test_sum_and_norm(dtype, shape):
    torch.manual_seed(0)
    x, y, weight = torch.randn(shape), torch.randn(shape), torch.rand(shape[-1]) + 0.5

    def both(x, y, weight):
        return torch.cat(add_rms_norm(x, y, weight, 1e-6))

    def plain(x, y, weight):
        return torch.cat((x + y, F.rms_norm(x + y, weight.shape, weight, 1e-6)))

    x, y = x.to(dtype), y.to(dtype)
    _assert_close(
        _value_and_gradients(both, x, y, weight), _value_and_gradients(plain, x.float(), y.float(), weight), dtype
    )


@pytest.mark.parametrize("dtype", FORMATS)
def test_norm_alone_returns_its_input_unchanged(dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(4, 7, 16, dtype=dtype, requires_grad=True), torch.rand(16) + 0.5
    same, normed = add_rms_norm(x, None, weight, 1e-6)
    assert torch.equal(same, x)
    torch.testing.assert_close(normed.float(), F.rms_norm(x.float(), (16,), weight, 1e-6), atol=2e-2, rtol=1e-2)
    (gradient,) = torch.autograd.grad(same.float().sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("width", [1, 13, 128])
def test_swiglu(dtype, width):
    torch.manual_seed(width)
    x, gate, up = torch.randn(2, 9, 8) * 3, torch.randn(width, 8), torch.randn(width, 8)

    def plain(x, gate, up):
        return F.silu(x @ gate.T) * (x @ up.T)

    x, gate, up = (part.to(dtype) for part in (x, gate, up))
    exact = _value_and_gradients(plain, *(part.float() for part in (x, gate, up)))
    ours = _value_and_gradients(lambda x, gate, up: swiglu(linear(x, gate, up)), x, gate, up)
    for a, b in zip(ours, exact, strict=True):
        assert (a - b).norm() <= (1e-5 if dtype == torch.float32 else 2e-2) * b.norm()


def test_exponential_over_its_whole_range():
    x = torch.linspace(-100, 60, 4001)
    logits = torch.stack((x, torch.zeros_like(x)), 1).contiguous()  # softmax of (x, 0)
    nats, penalty, scratch = torch.empty(4001), torch.empty(4001), torch.empty(torch.get_num_threads(), 2)
    targets = torch.ones(4001, dtype=torch.int64)
    library(torch.float32)("cross_entropy", 4001, 2, logits, targets, 1.0, 0.0, 1, nats, penalty, scratch)
    exact = torch.log1p(x.double().exp())
    torch.testing.assert_close(nats.double(), exact, atol=2e-7, rtol=3e-7)
    torch.testing.assert_close(logits[:, 0].double(), torch.sigmoid(x.double()), atol=1e-37, rtol=3e-6)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_propagated(dtype, bad):
    x = torch.randn(4, 16, dtype=dtype)
    x[2, 5] = bad
    weight = torch.ones(16)
    _, normed = add_rms_norm(x, None, weight, 1e-6)
    assert normed[2].isnan().any() and normed[[0, 1, 3]].isfinite().all()
    assert not swiglu(linear(x, *torch.ones(2, 3, 16, dtype=dtype)))[2].isfinite().any()
    nats, penalty, scratch = torch.empty(4), torch.empty(4), torch.empty(torch.get_num_threads(), 16)
    library(dtype)("cross_entropy", 4, 16, x, torch.zeros(4, dtype=torch.int64), 1.0, 0.0, 1, nats, penalty, scratch)
    assert not nats[2].isfinite() and nats[[0, 1, 3]].isfinite().all()


def test_the_bits_do_not_depend_on_the_number_of_other_rows():
    torch.manual_seed(0)
    x, weight = torch.randn(64, 32), torch.rand(32)
    first, second = (_value_and_gradients(lambda x, w: add_rms_norm(x, None, w, 1e-6)[1], x, weight) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(add_rms_norm(x[:7], None, weight, 1e-6)[1], first[0][:7])


def test_without_a_compiler_pytorch_computes_it(monkeypatch):
    library_module._compiled.cache_clear()
    library_module._library.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setenv("PATH", "")
            assert library(torch.float32) is None
            assert "no C compiler" in unavailable_reason()
            x = torch.randn(3, 8)
            _, normed = add_rms_norm(x, x, torch.ones(8), 1e-6)
            torch.testing.assert_close(normed, F.rms_norm(2 * x, (8,)), atol=1e-5, rtol=1e-5)
    finally:
        library_module._compiled.cache_clear()
        library_module._library.cache_clear()
    assert library(torch.float32) is not None


def test_without_write_access_to_the_source_s_folder_the_user_s_cache_is_used(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    folders = [blocked / "below", tmp_path / "cache"]
    monkeypatch.setattr(library_module, "_folders", lambda: folders)
    library_module._compiled.cache_clear()
    try:
        path, reason = library_module._compiled(torch.float32)
        assert path and path.parent == tmp_path / "cache" and not reason
        assert [found.name for found in (tmp_path / "cache").iterdir()] == [path.name]
        folders.pop()
        library_module._compiled.cache_clear()
        path, reason = library_module._compiled(torch.float32)
        assert path is None and "cannot write" in reason and str(blocked) in reason
    finally:
        library_module._compiled.cache_clear()


def test_switched_off(monkeypatch):
    monkeypatch.setenv(OFF, "off")
    assert library(torch.float32) is None and unavailable_reason() == f"{OFF}=off"
