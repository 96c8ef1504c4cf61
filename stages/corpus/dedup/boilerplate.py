"""Boilerplate: lines at the edges of documents on many subjects (menus, disclaimers, footers), and such paragraphs.

Lines and paragraphs ("blocks") are compared by 64-bit hashes of their words, case and white space aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.corpus.config import EditConfig
from stages.corpus.kernels.blocks import block_hashes, texts_with, without_blocks
from stages.corpus.kernels.characters import lower_words
from stages.corpus.texts import Texts

Hashes = NDArray[np.uint64]
Blocks = tuple[Hashes, NDArray[np.int64]]
"""Blocks of n documents, each once a document: uint64[k], and int64[n + 1] where each document's begin."""


def edge_blocks(texts: Texts, config: EditConfig) -> Blocks:
    """Hashes of the blocks of each text that could be boilerplate.

    These are the long enough lines among the first and the last few that are not blank, and the long enough
    paragraphs anywhere.
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
    """Paragraphs and single lines that went, int64[n]."""
    changed: NDArray[np.bool_]
    """Where any went, bool[n]."""


def strip(
    texts: Texts,
    boilerplate: Hashes,
    config: EditConfig,
    groups: Hashes | None = None,
    blocks: Blocks | None = None,
) -> Stripped:
    """Takes boilerplate out of texts: paragraphs wherever they stand, lines from the outside inwards.

    A line goes if it is among the first or last `boilerplate_edge_lines` and all before or behind it goes. Blank lines
    behind what goes go with it, and those at the ends of the text. A paragraph stays in the texts of one group: what
    many pages say in the same words may well be worth saying once. Where what goes makes up more of a text's
    characters than `boilerplate_maximum_share`, or all of its lines, it is what the text says: all stays.

    Args:
        texts: n texts.
        boilerplate: uint64[k, 2], see `BlockCounts.boilerplate`.
        groups: hash of each text's group, uint64[n]; without them paragraphs go everywhere.
        blocks: `edge_blocks` of the same texts, if they are at hand.
    """
    where = np.zeros(len(texts), np.bool_)
    known, keepers = np.ascontiguousarray(boilerplate[:, 0]), np.ascontiguousarray(boilerplate[:, 1])
    if len(known):
        where = texts_with(known, *(edge_blocks(texts, config) if blocks is None else blocks))
    if not where.any():
        return Stripped(texts, np.zeros(len(texts), np.int64), where)
    if groups is None:
        groups, keepers = np.ones(len(texts), np.uint64), np.zeros_like(keepers)
    data, offsets, gone = without_blocks(
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
    data.flags.writeable = False  # as all other texts are: kernels are compiled once for these, once for others
    return Stripped(Texts(data, offsets), gone, gone > 0)
