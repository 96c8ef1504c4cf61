"""Boilerplate: lines at the edges of documents on many subjects (menus, disclaimers, footers), and such paragraphs.

Lines and paragraphs ("blocks") are compared by 64-bit hashes of their words, ignoring case and white space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import EditConfig
from stages.corpus.kernels.blocks import block_hashes, remove_blocks, texts_with_blocks
from stages.corpus.kernels.characters import lower_words
from stages.corpus.texts import Texts

Hashes = NDArray[np.uint64]
Blocks = tuple[Hashes, NDArray[np.int64]]
"""Blocks of n documents, each once for each document: uint64[k], and their offsets int64[n + 1]."""


def edge_blocks(texts: Texts, config: EditConfig) -> Blocks:
    """Hashes of the blocks of each text that may be boilerplate.

    These are long enough lines among the first and last few that are not blank, and long enough paragraphs anywhere.
    """
    return block_hashes(
        texts.data,
        texts.offsets,
        config.boilerplate_edge_lines,
        config.boilerplate_minimum_characters,
        config.boilerplate_paragraph_characters,
        lower_words(),
    )


@dataclass(frozen=True)
class Stripped:
    """Texts without their boilerplate."""

    texts: Texts
    lines: NDArray[np.int64]
    """Removed paragraphs and single lines, int64[n]."""
    changed: NDArray[np.bool_]
    """Texts that were changed, bool[n]."""


def strip(
    texts: Texts,
    boilerplate: Hashes,
    config: EditConfig,
    groups: Hashes | None = None,
    blocks: Blocks | None = None,
) -> Stripped:
    """Removes boilerplate from texts: paragraphs anywhere, lines from the outside inwards.

    A line is removed if it is among the first or last `boilerplate_edge_lines` and all lines outside of it are removed.
    Blank lines after removed ones, and at the ends of the text, are removed too. The texts of one group keep a
    paragraph, since text that many pages repeat may be worth learning once. A text is unchanged where the boilerplate
    makes up more than `boilerplate_maximum_share` of its characters, or all of its lines: then it is content.

    Args:
        texts: n texts.
        boilerplate: uint64[k, 2], see `BlockCounts.boilerplate`.
        groups: hash of each text's group, uint64[n]; without them paragraphs are removed everywhere.
        blocks: `edge_blocks` of the same texts, if already computed.
    """
    where = np.zeros(len(texts), np.bool_)
    known, keepers = np.ascontiguousarray(boilerplate[:, 0]), np.ascontiguousarray(boilerplate[:, 1])
    if len(known):
        where = texts_with_blocks(known, *(edge_blocks(texts, config) if blocks is None else blocks))
    if not where.any():
        return Stripped(texts, np.zeros(len(texts), np.int64), where)
    if groups is None:
        groups, keepers = np.ones(len(texts), np.uint64), np.zeros_like(keepers)
    data, offsets, removed = remove_blocks(
        texts.data,
        texts.offsets,
        where,
        groups,
        known,
        keepers,
        config.boilerplate_edge_lines,
        config.boilerplate_minimum_characters,
        config.boilerplate_paragraph_characters,
        config.boilerplate_maximum_share,
        lower_words(),
    )
    data.flags.writeable = False  # as all other texts: kernels are compiled separately for read-only arrays
    return Stripped(Texts(data, offsets), removed, removed > 0)
