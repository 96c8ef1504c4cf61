"""What a benchmark ran on, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def machine() -> dict[str, Any]:
    """What this ran on, and its rate: bytes that one core copies in memory, read and written, best of five."""
    source = np.ones(1 << 27, np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "memory_copy_gigabytes_per_second": round(2 * source.nbytes / best / 1e9, 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def versions(ours: Sequence[str], rivals: Sequence[str], python: Path) -> dict[str, str]:
    """Versions of packages of this environment, and of those in the rivals' one (by its Python)."""
    found = {name: importlib.metadata.version(name) for name in ours}
    for name in rivals:
        infos = list(python.parent.parent.glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"))
        found[f"{name} (rivals)"] = infos[0].name.removesuffix(".dist-info").split("-", 1)[1] if infos else "missing"
    return found
