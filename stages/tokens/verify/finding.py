"""The result type of checks, and the type of their progress callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int], object]
"""Called with the bytes read since the last call."""


@dataclass(frozen=True)
class Finding:
    """One error in an artifact."""

    file: str
    """Path in the artifact."""
    field: str
    """Column, key, or property of the file: `sha256`, `bytes`, `tokens`."""
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: {self.field}: {self.problem}"
