"""Number formats: which is faster, and what is known of cards. The product that a machine's rate is taken from is no
longer than it needs to be."""

from __future__ import annotations

import pytest
import torch

from stages.training.runtime import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("rate", "size"),
    [(0.9e9, 256), (30e9, 1024), (450e9, 2048)],
    ids=["emulated", "fp32", "bf16"],
)
def test_a_slow_format_is_judged_by_a_small_product(monkeypatch, rate, size):
    """Two threads of so many operations a second each, which wait 10 ms for one another as on a busy machine."""
    sizes = []

    def seconds(dtype: torch.dtype, device: torch.device, size: int, repeats: int) -> float:
        sizes.append(size)
        threads = torch.get_num_threads()
        return 2 * size**3 / (rate * threads) + (0.01 if threads > 1 else 0.0)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(precision, "_seconds", seconds)
        precision.matmul_flops_per_second(torch.bfloat16, CPU)
    finally:
        torch.set_num_threads(before)
    assert sizes == [128, size]


def test_the_rate_is_that_of_a_product():
    assert precision.matmul_flops_per_second(torch.float32, CPU, size=64) > 0


def test_an_emulated_format_is_detected_by_small_products_of_one_thread(monkeypatch):
    asked, threads = [], torch.get_num_threads()

    def seconds(dtype: torch.dtype, device: torch.device, size: int, repeats: int) -> float:
        asked.append((size, torch.get_num_threads()))
        return size**3 * (1e-9 if dtype == torch.bfloat16 else 1e-11)

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert precision.faster_format(CPU) == "fp32"
    assert set(asked) == {(128, 1)} and torch.get_num_threads() == threads


def test_number_format_is_one_of_two():
    assert precision.faster_format(CPU) in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("card", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
    ],
)
def test_known_cards_have_a_dense_peak(card, teraflops):
    assert precision.dense_peak(card) == teraflops * 1e12


def test_an_unknown_card_has_none():
    assert precision.dense_peak("NVIDIA L400 Imagined") is None
