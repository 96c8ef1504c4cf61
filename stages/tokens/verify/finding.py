"""One thing that is wrong, and how a check tells what it has read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int], object]
"""Called with the number of bytes that were read since the last call."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    file: str
    """Path below the artifact."""
    field: str
    """Column, key, or what about the file: `sha256`, `bytes`, `tokens`."""
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.problem}"
