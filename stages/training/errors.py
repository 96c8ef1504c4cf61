"""What can go wrong in a run that its user can mend."""

from __future__ import annotations

from stages.store.errors import HeadwaterError


class TrainingError(HeadwaterError):
    """A run that cannot go on."""


class StoppedError(HeadwaterError):
    """A run that was asked to stop, and did so after writing a checkpoint; starting it again goes on from there."""
