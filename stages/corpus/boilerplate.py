"""Boilerplate: lines that stand at the edges of documents on many subjects (menus, disclaimers, footers)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from stages.corpus.config import EditConfig
from stages.corpus.words import Hashes, hash64


def line_hash(line: str) -> int:
    """Hash of a line, white space and case aside."""
    return hash64(" ".join(line.casefold().split()))


def edge_hashes(text: str, config: EditConfig) -> list[int]:
    """Hashes of the long enough lines among the first and last few of a text, each once."""
    depth = config.boilerplate_edge_lines
    if not depth:
        return []
    lines = [line for line in text.split("\n") if line.strip()]
    edges = lines if len(lines) <= 2 * depth else lines[:depth] + lines[-depth:]
    return sorted({line_hash(line) for line in edges if len(line.strip()) >= config.boilerplate_minimum_characters})


class EdgeLines:
    """Counts edge lines over all sources.

    A line is boilerplate of a source if it stands at the edge of documents of enough different groups (of the whole
    corpus) and in a large enough part of the source's documents. Groups, not documents, count: a heading that all
    pages about one disease begin with is no boilerplate.
    """

    def __init__(self, sources: Iterable[str], config: EditConfig):
        self._config = config
        self._lines: dict[str, list[int]] = {source: [] for source in sources}
        self._groups: dict[str, list[int]] = {source: [] for source in self._lines}
        self._documents = dict.fromkeys(self._lines, 0)

    def add(self, source: str, lines: list[int], group: str) -> None:
        """Adds one document: its edge hashes, each once, and its group."""
        self._documents[source] += 1
        self._lines[source].extend(lines)
        self._groups[source].extend([hash64(group)] * len(lines))

    def boilerplate(self) -> dict[str, Hashes]:
        """The boilerplate lines of each source, sorted hashes."""
        lines = np.array([line for found in self._lines.values() for line in found], np.uint64)
        groups = np.array([group for found in self._groups.values() for group in found], np.uint64)
        pairs = np.unique(np.stack([lines, groups], axis=1), axis=0) if len(lines) else np.empty((0, 2), np.uint64)
        values, count = np.unique(pairs[:, 0], return_counts=True)
        common = values[count >= self._config.boilerplate_minimum_groups]
        out = {}
        for source, found in self._lines.items():
            mine, times = np.unique(np.array(found, np.uint64), return_counts=True)
            often = mine[times >= self._config.boilerplate_minimum_fraction * self._documents[source]]
            out[source] = np.intersect1d(common, often)
        return out


def strip_boilerplate(text: str, lines: Collection[int], config: EditConfig) -> tuple[str, int]:
    """Peels boilerplate lines off both ends, from the outside inwards.

    Where they make up more of a document than `boilerplate_maximum_share`, they are what it says: all stay.

    Returns:
        The text, and how many lines went.
    """
    if not lines:
        return text, 0
    rows = [row for row in enumerate(text.split("\n")) if row[1].strip()]
    first, last = 0, len(rows)
    while first < min(last, config.boilerplate_edge_lines) and _is_boilerplate(rows[first][1], lines, config):
        first += 1
    least = max(first, last - config.boilerplate_edge_lines)
    while last > least and _is_boilerplate(rows[last - 1][1], lines, config):
        last -= 1
    gone = rows[:first] + rows[last:]
    if not gone or sum(len(row) for _, row in gone) > config.boilerplate_maximum_share * len(text):
        return text, 0
    kept = text.split("\n")[rows[first][0] : rows[last - 1][0] + 1]
    return "\n".join(kept), len(gone)


def _is_boilerplate(line: str, lines: Collection[int], config: EditConfig) -> bool:
    return len(line.strip()) >= config.boilerplate_minimum_characters and line_hash(line) in lines
