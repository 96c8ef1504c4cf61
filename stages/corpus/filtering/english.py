"""spaCy's English word splitter, as datatrove uses it: asked only for what simpler rules do not settle."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels.pieces import hash_bytes
from stages.corpus.kernels.plain_pieces import bytes_of_characters


@lru_cache(maxsize=1)
def _language() -> Any:
    """spaCy's blank English. Imported when first needed, and without torch.

    spaCy's machine-learning library imports torch if it is there: 2 seconds, and 200 MB a process, for a splitter that
    is all regular expressions. `None` in sys.modules makes that one import fail, which the library allows for.
    """
    without_torch = "torch" not in sys.modules and "spacy" not in sys.modules
    if without_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import spacy

        return spacy.blank("en")
    finally:
        if without_torch:
            del sys.modules["torch"]


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
    language = _language()
    from spacy.attrs import LENGTH

    joined = b"\n".join(pieces)
    text = joined.decode()
    # Not in a `memory_zone`: what the splitter remembers of pieces outlives it, and once a smiley came out wrong.
    lengths = language.tokenizer(text).to_array([LENGTH]).astype(np.int32)
    data = np.frombuffer(joined, np.uint8)
    sizes = np.empty(len(lengths), np.int32)
    covered = bytes_of_characters(data, lengths, sizes)
    begins = np.cumsum(sizes) - sizes
    feeds = np.flatnonzero((data[begins] == 10) & (sizes == 1))
    if covered != len(data) or len(feeds) != len(pieces) - 1:
        raise RuntimeError("spaCy's tokens do not add up to its text")
    counts = np.diff(np.concatenate([[-1], feeds, [len(sizes)]])) - 1
    return counts.astype(np.int32), np.delete(sizes, feeds)
