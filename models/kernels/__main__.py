"""Compiles the loops for this machine, so that a first run need not: `python -m models.kernels`."""

from __future__ import annotations

import sys

from models.kernels.library import FORMATS, library, why_not

if __name__ == "__main__":
    for dtype in FORMATS:
        library(dtype)
    if reason := why_not():
        print(f"training on this CPU goes without compiled loops, which makes it slower: {reason}", file=sys.stderr)
