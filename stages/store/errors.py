"""Errors that a user can act on; the command line prints them without a traceback."""

from __future__ import annotations


class HeadwaterError(Exception):
    """An error that the user can fix. The message says what failed, where, and what to do."""


class InputError(HeadwaterError):
    """Documents, evaluation sets or paths that cannot be used."""


class ConfigError(HeadwaterError):
    """A recipe or a parameter is invalid."""


class StoreError(HeadwaterError):
    """The artifact store is unreachable, unwritable or holds damaged data."""


class LeaseHeldError(StoreError):
    """Another live process is already building this artifact."""
