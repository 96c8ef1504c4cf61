"""Errors that a user can act on; the command line prints them without a traceback."""

from __future__ import annotations


class HeadwaterError(Exception):
    """Something the user can mend. The message says what was wrong, where, and what to do."""


class InputError(HeadwaterError):
    """Documents, evaluation sets or paths that cannot be used as they are."""


class ConfigError(HeadwaterError):
    """A recipe or a parameter that is wrong."""


class StoreError(HeadwaterError):
    """An artifact store that is unreachable, unwritable or holds damaged data."""


class LeaseHeldError(StoreError):
    """Another live process is already making this artifact."""
