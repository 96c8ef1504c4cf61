"""How far measurements lie apart; without any library, for scripts that run where none is installed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and most of some values, and their number."""
    return {"median": median(values), "least": min(values), "most": max(values), "runs": len(values)}
