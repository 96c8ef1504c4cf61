"""Is there memory for a second engine beside the one that serves?"""

from __future__ import annotations

from pathlib import Path

from serving.config import EngineConfig
from stages.memory import available_memory

GIB = 1 << 30
GPU = Path("/dev/nvidia0")
DEFAULT_GPU_FRACTION = 0.9
"""What vLLM takes of a GPU unless it is told otherwise."""


def room_for_two(serving: EngineConfig, coming: EngineConfig, gib: float) -> bool:
    """True if `gib` GiB of memory are available and, on a machine with a GPU, both engines' shares of it fit."""
    if GPU.exists():
        shares = [engine.gpu_memory_fraction or DEFAULT_GPU_FRACTION for engine in (serving, coming)]
        if sum(shares) > 1:
            return False
    return available_memory() >= gib * GIB
