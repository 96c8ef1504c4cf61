"""Requests AMX from Linux in every Python process of an engine; the interpreter imports it at its start.

A process must ask for the tile registers before its first AMX instruction, or it is killed by SIGILL. oneDNN asks when
it runs its own AMX kernels, vLLM's attention on CPUs never asks: an engine whose first products are too small for
oneDNN's died at its first completion (seen with a model of two layers on a Sapphire Rapids). The permission is lost at
exec, so each process has to ask for itself.
"""

import os
import sys

SYS_ARCH_PRCTL = 158  # on x86-64
ARCH_REQ_XCOMP_PERM = 0x1023
XFEATURE_XTILEDATA = 18

if sys.platform == "linux" and os.uname().machine == "x86_64":
    import ctypes

    # An error is a processor without AMX, or a kernel that does not guard it.
    ctypes.CDLL(None).syscall(SYS_ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
