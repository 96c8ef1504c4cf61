"""Compiles the loops for this machine in advance: `python -m models.kernels`."""

from __future__ import annotations

import sys

from models.kernels.library import FORMATS, library, unavailable_reason

if __name__ == "__main__":
    for dtype in FORMATS:
        library(dtype)
    if reason := unavailable_reason():
        print(f"no compiled CPU kernels: training on this CPU will be slower: {reason}", file=sys.stderr)
