"""Files that no other user of this machine can read: all that our processes create, and the secrets among them."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from stages.store.errors import ConfigError

LEAST_CHARACTERS = 16
"""A shorter secret could be guessed."""
PRIVATE_UMASK = 0o077


def keep_private() -> None:
    """What this process and all that it starts create from now on is for this user alone: documents are in it."""
    os.umask(PRIVATE_UMASK)


def make_private_folder(folder: Path) -> None:
    """Creates a folder, and those above it that are missing, so that only this user can enter them."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def ensure_secret(path: Path, what: str, prefix: str = "") -> tuple[str, bool]:
    """The secret in a file; 32 random bytes behind `prefix` if there is no such file. Returns (secret, is new).

    The file appears whole: of several processes that create it at once all return what one of them wrote.

    Args:
        what: what the secret is, for messages: `API key`.

    Raises:
        ConfigError: see `read_secret`.
    """
    make_private_folder(path.parent)
    if os.path.lexists(path):
        return read_secret(path, what), False
    secret = prefix + secrets.token_urlsafe(32)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
        os.link(aside, path)
    except FileExistsError:
        return read_secret(path, what), False
    finally:
        os.unlink(aside)
    return secret, True


def read_secret(path: Path, what: str) -> str:
    """The secret in a file.

    Raises:
        ConfigError: there is no such file, it is another user's, other users can read it, or the secret is too short to
            be safe.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe would block
        with os.fdopen(handle) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path}, for the {what}, is not a regular file; remove it")
            secret = file.read().strip()
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path}, for the {what}, is a link to a file that does not exist; remove it") from None
        raise ConfigError(f"there is no {what} at {path}; `headwater up` creates it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the {what} in {path} cannot be read: {error}") from None
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} contains the {what} and has mode {mode:o}: other users can read it; `chmod 600 {path}`"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path} with the {what} belongs to another user (uid {found.st_uid}); remove it")
    if len(secret) < LEAST_CHARACTERS:
        raise ConfigError(f"{path} contains no {what}; remove it, and the next start creates a new one")
    return secret
