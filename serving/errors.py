"""What can go wrong in serving, in words that a user can act on."""

from __future__ import annotations

from stages.store import HeadwaterError


class ServingError(HeadwaterError):
    """A model that is not, or cannot be, served."""


class ModelRefusedError(ServingError):
    """A model folder that is not safe to load: it holds code, pickles, or asks for code."""
