"""Encodes a text of any length with Hugging Face's tokenizers, which need a hundred times its size in memory.

The text is encoded in windows. Of each window only the ids up to a word that ends well inside are used, and the next
window begins after that word. The result equals the ids of the whole text, because split patterns only look ahead: they
match from left to right, and the end of a match depends on what follows up to the end of the run of white space, or of
other characters, in which it ends (`\\s*[\\r\\n]+` looks for the last line end of a run), and on a few characters after
it (`(?!\\S)` looks at one, `'ll` is two). So the used words end before the window's last change between such runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

WINDOW = 1 << 20
"""Characters in a window: about 100 MB of memory in the library."""
MARGIN = 256
"""Words in this many characters before the last change of runs are not used; longer than any added token."""


_LOOKS_BACK = re.compile(r"\(\?<[=!]|\\[bBAGK]|(?<!\[)\^")


def can_be_cut(step: Mapping[str, Any] | None) -> bool:
    """Whether encoding in windows gives the ids of the whole text: no prefix space, and no pattern that looks back.

    Args:
        step: `pre_tokenizer` of a `tokenizer.json`.
    """
    if not step or step.get("add_prefix_space"):
        return False
    if "pretokenizers" in step:
        return all(can_be_cut(inner) for inner in step["pretokenizers"])
    return not _LOOKS_BACK.search(str((step.get("pattern") or {}).get("Regex", "")))


def encode_long(tokenizer: Tokenizer, text: str, window: int = WINDOW, margin: int = MARGIN) -> NDArray[np.uint32]:
    """Ids of a text, uint32 [T], equal to `tokenizer.encode(text)`, with memory for one window.

    A window without a place to end (a longer run without white space) is enlarged.

    Args:
        tokenizer: byte-level, accepted by `can_be_cut`, and without post-processor, which may move a word's first
            character out of its token.
    """
    found = [np.empty(0, dtype=np.uint32)]
    start, size = 0, window
    while start < len(text):
        window_text = text[start : start + size]
        encoding = tokenizer.encode(window_text, add_special_tokens=False)
        used, end = len(encoding), len(window_text)
        if start + size < len(text):
            used, end = _last_word(encoding, _last_change(window_text) - margin)
        if used:
            found.append(np.array(encoding.ids[:used], dtype=np.uint32))
            start, size = start + end, window
        else:
            size *= 2
    return np.concatenate(found)


def _last_change(window_text: str) -> int:
    """Start of the white space before the last word; 0 if there is none."""
    parts = window_text.rstrip().rsplit(maxsplit=1)
    return len(parts[0]) if len(parts) == 2 else 0


def _last_word(encoding: Encoding, limit: int) -> tuple[int, int]:
    """(tokens, characters) up to the end of the last word that ends by character `limit`; zeros if there is none."""
    words, offsets = encoding.word_ids, encoding.offsets
    for last in range(len(words) - 2, -1, -1):
        end = offsets[last][1]
        if end <= limit and words[last] != words[last + 1]:
            return last + 1, end
    return 0, 0
