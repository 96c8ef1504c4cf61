"""The number format of a run's products, and the rate at which this machine computes them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FORMATS = {"bf16": torch.bfloat16, "fp32": torch.float32}

SIZES = {"cpu": 2048, "cuda": 8192}
"""Of the products that a machine's rate is taken from: large enough that nothing but the products counts."""

DENSE_PEAKS = {
    "B200": 2250e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}
"""bf16 operations a second of the makers' data sheets, without sparsity, by a part of the card's name; the first that
fits counts."""

_SMALL = 128
"""Of products that one thread makes in no time, emulated or not."""

_LONG_SECONDS = 0.05
"""A product that takes so long says all that a larger one would, and costs less."""


def matmul_flops_per_second(dtype: torch.dtype, device: torch.device, size: int = 0, repeats: int = 3) -> float:
    """Operations a second of a size^3 matrix product: the fastest of a few, after one to warm up.

    Args:
        size: 0: the device's of `SIZES`, on a CPU a smaller one if that would take long. Where hardware lacks a format
            and it is emulated, a product of 2048 takes half a minute.
    """
    size = size or _fitting(dtype, device)
    return 2 * size**3 / _seconds(dtype, device, size, repeats)


def _fitting(dtype: torch.dtype, device: torch.device) -> int:
    """The largest size whose product takes no longer than `_LONG_SECONDS`, by the rate of one thread's small one."""
    size = SIZES[device.type]
    if device.type != "cpu":
        return size
    with _one_thread():
        rate = matmul_flops_per_second(dtype, device, size=_SMALL)
    while size > 2 * _SMALL and 2 * size**3 / (rate * torch.get_num_threads()) > _LONG_SECONDS:
        size //= 2
    return size


def _seconds(dtype: torch.dtype, device: torch.device, size: int, repeats: int) -> float:
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for attempt in range(repeats + 1):
        began = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if attempt:
            best = min(best, time.perf_counter() - began)
    return best


def peak_rate(device: torch.device, precision: str) -> float | None:
    """The data sheet's rate of a known card, which utilization is a share of; None for other devices."""
    return dense_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" and precision == "bf16" else None


def dense_peak(card: str) -> float | None:
    """The entry of `DENSE_PEAKS` for a card's name, such as `NVIDIA H100 80GB HBM3`."""
    return next((rate for name, rate in DENSE_PEAKS.items() if re.search(rf"\b{name}\b", card)), None)


def faster_format(device: torch.device) -> str:
    """The format whose product is faster here. bf16 is emulated, and many times slower, where hardware lacks it.

    The first look is at a small product, so that emulation costs no minute.
    """
    with _one_thread():
        small = {name: matmul_flops_per_second(dtype, device, size=_SMALL) for name, dtype in FORMATS.items()}
    if small["bf16"] < small["fp32"] / 2:
        return "fp32"
    rates = dict.fromkeys(FORMATS, 0.0)
    for _ in range(3):  # alternating, so that a busy moment does not decide
        for name, dtype in FORMATS.items():
            rates[name] = max(rates[name], matmul_flops_per_second(dtype, device, size=1024, repeats=2))
    return max(rates, key=lambda name: rates[name])


def machine_rate() -> tuple[str, float]:
    """The number format that training takes on this machine's processors, and operations a second of a 2048^3 product
    in it on all of them: what stands beside absolute times, since machines differ by more than two."""
    device = torch.device("cpu")
    name = faster_format(device)
    return name, matmul_flops_per_second(FORMATS[name], device, SIZES["cpu"], repeats=5)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For small products: where other processes keep cores busy, threads wait for one another longer than such a
    product takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
