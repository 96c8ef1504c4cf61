"""spaCy's English word splitter, as datatrove uses it: asked only for what simpler rules do not settle."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels.pieces import hash_bytes
from stages.corpus.kernels.plain_pieces import bytes_of_characters


@lru_cache(maxsize=1)
def _language() -> Any:
    """spaCy's blank English. Imported when first needed, and without torch.

    spaCy's machine-learning library imports torch if it is there: 2 seconds, and 200 MB a process, for a splitter that
    is all regular expressions. It allows for that import to fail.
    """
    hidden = _Hidden("torch")
    sys.meta_path.insert(0, hidden)
    try:
        import spacy

        return spacy.blank("en")
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Makes a module look absent to this thread. To others, which may be importing it just now, it is what it is."""

    def __init__(self, name: str):
        self._name, self._thread = name, threading.get_ident()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Refuses, or leaves the search to others."""
        if fullname == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is hidden while spaCy is imported", name=fullname)


@lru_cache(maxsize=1)
def special_cases() -> NDArray[np.uint64]:
    """Hashes (`hash_bytes`) of what spaCy knows as special cases (`can't`, `e.g.`, `:)`), sorted."""
    known = [np.frombuffer(text.encode(), np.uint8) for text in _language().tokenizer.rules]
    return np.sort(np.array([hash_bytes(text, 0, len(text)) for text in known], np.uint64))


FORGOTTEN_AFTER = 500_000
"""So many pieces spaCy is asked for before it is made anew, since it remembers all words that it sees."""
_asked = 0


def split_pieces(pieces: list[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens of pieces of text without white space, at least one byte each.

    They are split in one go: between two pieces stands a line feed, which is a token of its own, so that nothing is
    taken together that belongs to two of them.

    Returns:
        int32[n], tokens of each piece, and int32[k], bytes of each token, piece by piece.
    """
    global _asked
    _asked += len(pieces)
    if _asked > FORGOTTEN_AFTER:
        _language.cache_clear()
        _asked = 0
    if found := _split_at_once(pieces):
        return found
    # Seen once, of a splitter that remembered a smiley wrong. A new one, and nothing beside a piece.
    _language.cache_clear()
    alone = [_split_at_once([piece]) or _unsplit(piece) for piece in pieces]
    return np.concatenate([counts for counts, _ in alone]), np.concatenate([sizes for _, sizes in alone])


def _split_at_once(pieces: list[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Tokens of pieces, see `split_pieces`; None if what spaCy says of them cannot be."""
    language = _language()
    from spacy.attrs import LENGTH

    joined = b"\n".join(pieces)
    lengths = language.tokenizer(joined.decode()).to_array([LENGTH]).astype(np.int32)
    data = np.frombuffer(joined, np.uint8)
    sizes = np.empty(len(lengths), np.int32)
    covered = bytes_of_characters(data, lengths, sizes)
    begins = np.cumsum(sizes) - sizes
    feeds = np.flatnonzero((data[begins] == 10) & (sizes == 1))
    if covered != len(data) or len(feeds) != len(pieces) - 1:
        return None
    counts = np.diff(np.concatenate([[-1], feeds, [len(sizes)]])) - 1
    return counts.astype(np.int32), np.delete(sizes, feeds)


def _unsplit(piece: bytes) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.array([1], np.int32), np.array([len(piece)], np.int32)
