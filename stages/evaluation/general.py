"""General text: what a model that goes on from a base has forgotten is measured on it.

Unless a recipe names a file or folder, it is the prose in the descriptions of the packages that Headwater needs:
English that is on every machine, is pinned with them, and is copied nowhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata

from stages.corpus import Listing
from stages.evaluation.sets import keyed_hash
from stages.store import InputError

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.txt", "*.md")
"""Files that are read: JSON Lines with a field `text`, and plain text."""
MAX_DOCUMENTS = 32
_LEAST_CHARACTERS = 60
_LEAST_PROSE = 500
_NOT_PROSE = re.compile(r"[<>|{}=`\\]|https?:|\]\(|::")
"""Characters of markup and code."""
_FENCE = re.compile(r"^\s*(```|~~~)")


@dataclass(frozen=True)
class GeneralText:
    """Documents by name."""

    documents: tuple[tuple[str, str], ...]
    origin: str
    """Where they come from, for people."""

    @cached_property
    def digest(self) -> str:
        """Hash over the sorted (name, sha256 of the text); 64 hex digits."""
        total = hashlib.sha256()
        for name, text in sorted(self.documents):
            total.update(json.dumps([name, hashlib.sha256(text.encode()).hexdigest()]).encode() + b"\n")
        return total.hexdigest()

    def excerpts(self, limit: int, seed: int) -> list[tuple[str, str]]:
        """The beginnings of at most `MAX_DOCUMENTS` documents, chosen by the seed, sorted by name; about `limit` bytes
        together, each of the same size, or whole."""
        chosen = sorted(self.documents, key=lambda item: keyed_hash(item[0], seed))[:MAX_DOCUMENTS]
        each = max(1, limit // max(1, len(chosen)))
        return sorted((name, _beginning(text, each)) for name, text in chosen)


def _beginning(text: str, size: int) -> str:
    """At most so many bytes, whole characters."""
    return text.encode()[:size].decode(errors="ignore")


def read_general(listing: Listing) -> GeneralText:
    """General text from files.

    Raises:
        InputError: a line that is no JSON object with a text, a file that is not UTF-8, or no text at all.
    """
    found: list[tuple[str, str]] = []
    for file in listing.files:
        with listing.open(file.name) as stream:
            content = stream.read()
        where = f"evaluation.general: {listing.path(file.name)}"
        try:
            text = (gzip.decompress(content) if file.name.lower().endswith(".gz") else content).decode("utf-8-sig")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InputError(f"{where} cannot be read: {error}") from error
        if ".jsonl" in file.name.lower():
            found += _records(file.name, text, where)
        else:
            found.append((file.name, text))
    documents = tuple((name, text) for name, text in found if text.strip())
    if not documents:
        raise InputError(f"evaluation.general: {listing.location} has no text")
    return GeneralText(documents, listing.location)


def _records(name: str, text: str, where: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}, line {number}: not JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise InputError(f"{where}, line {number}: no field `text` with a text")
        yield f"{name}#{number}", record["text"]


def package_descriptions() -> GeneralText:
    """The prose in the descriptions of the packages that Headwater needs, at the versions that are installed."""
    found: dict[str, str] = {}
    for requirement in metadata.requires("headwater") or []:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if "extra ==" in requirement:
            continue
        try:
            described = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # for another kind of machine
            continue
        body = described.get("Description") or described.get_payload()  # type: ignore[attr-defined]
        text = _prose(str(body or ""))
        if len(text) >= _LEAST_PROSE:
            found[f"{name} {described['Version']}"] = text
    return GeneralText(tuple(sorted(found.items())), "the descriptions of installed packages")


def _prose(text: str) -> str:
    """Whole sentences of a description: no code, no markup, no lists of links."""
    kept, fenced = [], False
    for paragraph in _paragraphs(text):
        if _FENCE.match(paragraph):
            fenced = not fenced
        elif not fenced and len(paragraph) >= _LEAST_CHARACTERS and not _NOT_PROSE.search(paragraph):
            kept.append(paragraph)
    return "\n\n".join(kept)


def _paragraphs(text: str) -> Iterator[str]:
    """Lines that belong together, joined; fences by themselves."""
    lines: list[str] = []
    for line in text.split("\n"):
        if line.strip() and not _FENCE.match(line):
            lines.append(line.strip())
            continue
        if lines:
            yield " ".join(lines)
        lines = []
        if _FENCE.match(line):
            yield line
    if lines:
        yield " ".join(lines)
