"""What a folder holds that is not read: counted by reason, with the first names, so that nothing is missed unseen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMES = 3
"""Names that are kept for a reason."""
MOST_REASONS = 20
"""Reasons that a description has one by one, with names."""
MOST_SHORT_REASONS = 200
"""Reasons that follow in one line."""

HIDDEN, SYSTEM = "hidden", "made by the operating system or an editor"
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".br", ".z")
_SUFFIX = re.compile(r"\.(?=[a-z0-9_-]*[a-z])[a-z0-9_-]{1,12}")


@dataclass(frozen=True)
class Unread:
    """Files, folders and other entries that are not read, all for one reason."""

    reason: str
    count: int
    names: tuple[str, ...]
    """The first by name, printable; folders end in `/`."""


def count_unread(found: Iterable[tuple[str, str]], others: Iterable[Unread] = ()) -> tuple[Unread, ...]:
    """Counts (reason, name) pairs, together with `others`; the most frequent reason first."""
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for one in others:
        counts[one.reason] = counts.get(one.reason, 0) + one.count
        names.setdefault(one.reason, []).extend(one.names)
    for reason, name in found:
        counts[reason] = counts.get(reason, 0) + 1
        names.setdefault(reason, []).append(printable_name(name))
    order = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return tuple(Unread(reason, counts[reason], tuple(sorted(names[reason])[:MOST_NAMES])) for reason in order)


def describe_unread(unread: Iterable[Unread]) -> list[str]:
    """A line for each reason: `no reader for .pdf: 12 (a.pdf, b.pdf, c.pdf and 9 more)`."""
    found = list(unread)
    lines = []
    for one in found[:MOST_REASONS]:
        more = one.count - len(one.names)
        names = ", ".join(one.names) + (f" and {more:,} more" if more else "")
        lines.append(f"{one.reason}: {one.count:,} ({names})")
    if rest := found[MOST_REASONS:]:
        parts = [f"{one.reason}: {one.count:,}" for one in rest[:MOST_SHORT_REASONS]]
        if others := rest[MOST_SHORT_REASONS:]:
            parts.append(f"{len(others):,} other reasons: {sum(one.count for one in others):,}")
        lines.append("; ".join(parts))
    return lines


def no_reader(name: str) -> str:
    """The reason for a file of a format that is not read: its suffix, with the one before if that is a compression."""
    stem, suffix = _split(name.rsplit("/", 1)[-1].lower())
    if suffix in _COMPRESSIONS:
        suffix = _split(stem)[1] + suffix
    return f"no reader for {suffix}" if suffix else "no suffix that names a format"


def ignored_part(name: str) -> tuple[str, str] | None:
    """Whether a file is hidden or a system's own, by its name or that of a folder above it: (reason, that part)."""
    parts = name.split("/")
    for number, part in enumerate(parts, 1):
        reason = HIDDEN if part.startswith(".") else SYSTEM if _is_system(part) else ""
        if reason:
            return reason, "/".join(parts[:number]) + ("/" if number < len(parts) else "")
    return None


def printable_name(name: str) -> str:
    """A name for a message: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def is_utf8(name: str) -> bool:
    """False for a file name with other bytes, which Python represents as lone surrogates."""
    return not any(0xD800 <= ord(character) < 0xE000 for character in name)


def _is_system(part: str) -> bool:
    return part.casefold() in _SYSTEM_NAMES or part.startswith("~$")


def _split(base: str) -> tuple[str, str]:
    stem, dot, end = base.rpartition(".")
    suffix = dot + end
    return (stem, suffix) if stem and _SUFFIX.fullmatch(suffix) else (base, "")
