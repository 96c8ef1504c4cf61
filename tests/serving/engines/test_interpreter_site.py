"""Every interpreter of an engine may use AMX where the processor has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.config import EngineConfig
from serving.engines.engine import engine_environment

TILE_DATA = 1 << 18
"""The bit of the tile registers in the masks of arch_prctl(2): what is supported, what is permitted."""
ASK = """
import ctypes
for request in (0x1021, 0x1022):
    mask = ctypes.c_uint64(0)
    ctypes.CDLL(None).syscall(158, request, ctypes.byref(mask))
    print(mask.value)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="arch_prctl is Linux's")
def test_an_engine_s_interpreters_have_asked_for_amx(tmp_path: Path) -> None:
    environment = engine_environment(EngineConfig(), tmp_path)
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    supported, permitted = map(int, done.stdout.split())
    assert bool(permitted & TILE_DATA) == bool(supported & TILE_DATA)
