"""A text of any length through Hugging Face's tokenizers, which alone would take a hundred times its size in memory.

The text is encoded window by window. Of each window only the ids up to a word that ends well inside are kept, and the
next window begins behind that word. These are the ids of the whole text, because split patterns look ahead only: they
match from left to right, and how far a match goes depends on what follows it up to the end of the run of white space,
or of other characters, that it stops in (`\\s*[\\r\\n]+` looks for the last line end of a run), and on a few characters
behind (`(?!\\S)` looks at one, `'ll` is two). So kept words end before the window's last change between such runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

WINDOW = 1 << 20
"""Characters in a window: about 100 MB in the library."""
MARGIN = 256
"""Characters before the last change of runs whose words are not kept; more than an added token has."""


_LOOKS_BACK = re.compile(r"\(\?<[=!]|\\[bBAGK]|(?<!\[)\^")


def can_be_cut(step: Mapping[str, Any] | None) -> bool:
    """Whether windows give the ids of the whole text: no space is put before a text, and no pattern looks back.

    Args:
        step: `pre_tokenizer` of a `tokenizer.json`.
    """
    if not step or step.get("add_prefix_space"):
        return False
    if "pretokenizers" in step:
        return all(can_be_cut(inner) for inner in step["pretokenizers"])
    return not _LOOKS_BACK.search(str((step.get("pattern") or {}).get("Regex", "")))


def encode_long(tokenizer: Tokenizer, text: str, window: int = WINDOW, margin: int = MARGIN) -> NDArray[np.uint32]:
    """Ids of a text, uint32 [T]: those of `tokenizer.encode(text)`, in memory for a window.

    Where a window holds no place to end it at (a run without white space that is longer), it is made larger.

    Args:
        tokenizer: byte-level, one that `can_be_cut`, and without post-processor, which may move a word's first
            character out of its token.
    """
    found = [np.empty(0, dtype=np.uint32)]
    start, size = 0, window
    while start < len(text):
        piece = text[start : start + size]
        encoding = tokenizer.encode(piece, add_special_tokens=False)
        kept, end = len(encoding), len(piece)
        if start + size < len(text):
            kept, end = _last_word(encoding, _last_change(piece) - margin)
        if kept:
            found.append(np.array(encoding.ids[:kept], dtype=np.uint32))
            start, size = start + end, window
        else:
            size *= 2
    return np.concatenate(found)


def _last_change(piece: str) -> int:
    """Where the white space before the last word begins; 0 if there is none."""
    parts = piece.rstrip().rsplit(maxsplit=1)
    return len(parts[0]) if len(parts) == 2 else 0


def _last_word(encoding: Encoding, limit: int) -> tuple[int, int]:
    """(tokens, characters) up to the end of the last word that ends by character `limit`; zeros if there is none."""
    words, offsets = encoding.word_ids, encoding.offsets
    for last in range(len(words) - 2, -1, -1):
        end = offsets[last][1]
        if end <= limit and words[last] != words[last + 1]:
            return last + 1, end
    return 0, 0
