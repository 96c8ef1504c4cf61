"""Errors of a run that its user can fix."""

from __future__ import annotations

from stages.store.errors import HeadwaterError


class TrainingError(HeadwaterError):
    """A run that cannot go on."""


class StoppedError(HeadwaterError):
    """A run that was stopped, after writing a checkpoint; started again, it resumes there."""
