"""Where a location lies: a path of this machine, or a URL of any file system that fsspec knows."""

from __future__ import annotations

import os
import re

import fsspec

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_LOCAL = re.compile(r"(file|local)://")
_ARCHIVES = ("zip", "tar", "libarchive")


def local_path(location: str) -> str | None:
    """The absolute path of a location on this machine; None for a URL of another file system."""
    if _LOCAL.match(location):
        return os.path.abspath(_LOCAL.sub("", location, count=1))
    return None if _URL.match(location) else os.path.abspath(location)


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """As `fsspec.core.url_to_fs`, but `::` belongs to a name unless it chains URLs, as in `simplecache::s3://x`.

    Raises:
        ImportError, ValueError: no file system has this protocol.
    """
    protocol, _, rest = url.partition("://")
    chained = "::" in protocol or protocol in _ARCHIVES or any("://" in part for part in rest.split("::")[1:])
    if "::" not in url or chained:
        return fsspec.core.url_to_fs(url)
    of = fsspec.get_filesystem_class(protocol)
    return of(**of._get_kwargs_from_urls(url)), of._strip_protocol(url)
