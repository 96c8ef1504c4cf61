"""Whether a second engine fits into memory beside a running one."""

from __future__ import annotations

from pathlib import Path

from serving.config import EngineConfig
from stages.memory import available_memory

GIB = 1 << 30
GPU = Path("/dev/nvidia0")
DEFAULT_GPU_MEMORY_UTILIZATION = 0.9
"""vLLM's own default."""


def fits_beside(running: EngineConfig, starting: EngineConfig, available_gib: float) -> bool:
    """True if at least `available_gib` GiB of memory are available and, on a GPU, both engines' shares of it fit."""
    if GPU.exists():
        shares = [engine.gpu_memory_utilization or DEFAULT_GPU_MEMORY_UTILIZATION for engine in (running, starting)]
        if sum(shares) > 1:
            return False
    return available_memory() >= available_gib * GIB
