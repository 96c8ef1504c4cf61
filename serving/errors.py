"""Errors of serving. Their messages are for users: what failed, where, and what to do."""

from __future__ import annotations

from stages.store import HeadwaterError


class ServingError(HeadwaterError):
    """A model is not, or cannot be, served."""


class ModelRefusedError(ServingError):
    """A model folder is not safe to load: it holds code or pickles, or asks for code."""


class NotReadyError(ServingError):
    """No engine can answer now."""

    def __init__(self, message: str, retry_after_seconds: float):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """Estimated time until an engine can."""
