"""spaCy's English tokenizer, as datatrove uses it, for the words that `plain_tokens` does not handle."""

from __future__ import annotations

import sys
import threading
from functools import lru_cache
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels.plain_tokens import bytes_of_characters
from stages.corpus.kernels.word_split import hash_bytes


@lru_cache(maxsize=1)
def _language() -> Any:
    """spaCy's blank English. Imported when first needed, and without torch.

    spaCy's machine-learning library imports torch if it is installed: 2 seconds, and 200 MB for each process, for a
    tokenizer that only uses regular expressions. It works without torch.
    """
    hidden = _HideModule("torch")
    sys.meta_path.insert(0, hidden)
    try:
        import spacy

        return spacy.blank("en")
    finally:
        sys.meta_path.remove(hidden)


class _HideModule(MetaPathFinder):
    """Makes a module look absent to this thread. Other threads, which may be importing it, are not affected."""

    def __init__(self, name: str):
        self._name, self._thread = name, threading.get_ident()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raises for the hidden module; otherwise leaves the search to other finders."""
        if fullname == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is hidden while spaCy is imported", name=fullname)


@lru_cache(maxsize=1)
def special_cases() -> NDArray[np.uint64]:
    """Hashes (`hash_bytes`) of spaCy's special cases (`can't`, `e.g.`, `:)`), sorted."""
    known = [np.frombuffer(text.encode(), np.uint8) for text in _language().tokenizer.rules]
    return np.sort(np.array([hash_bytes(text, 0, len(text)) for text in known], np.uint64))


RENEW_AFTER_WORDS = 500_000
"""Words after which the tokenizer is created anew, since spaCy caches every word that it sees."""
_tokenized = 0


def tokenize_words(words: list[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Tokens of words (no white space, at least one byte each).

    They are tokenized together, joined by line feeds, which are tokens of their own, so that no token spans two words.

    Returns:
        int32[n], number of tokens of each word, and int32[k], bytes of each token, word by word.
    """
    global _tokenized
    _tokenized += len(words)
    if _tokenized > RENEW_AFTER_WORDS:
        _language.cache_clear()
        _tokenized = 0
    if found := _tokenize_joined(words):
        return found
    # Seen once: a tokenizer that had cached a wrong result for a smiley. Retry with a new one, each word alone.
    _language.cache_clear()
    alone = [_tokenize_joined([word]) or _single_token(word) for word in words]
    return np.concatenate([counts for counts, _ in alone]), np.concatenate([sizes for _, sizes in alone])


def _tokenize_joined(words: list[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Tokens of words, see `tokenize_words`; None if spaCy's tokens do not match the words."""
    language = _language()
    from spacy.attrs import LENGTH

    joined = b"\n".join(words)
    lengths = language.tokenizer(joined.decode()).to_array([LENGTH]).astype(np.int32)
    data = np.frombuffer(joined, np.uint8)
    sizes = np.empty(len(lengths), np.int32)
    covered = bytes_of_characters(data, lengths, sizes)
    begins = np.cumsum(sizes) - sizes
    feeds = np.flatnonzero((data[begins] == 10) & (sizes == 1))
    if covered != len(data) or len(feeds) != len(words) - 1:
        return None
    counts = np.diff(np.concatenate([[-1], feeds, [len(sizes)]])) - 1
    return counts.astype(np.int32), np.delete(sizes, feeds)


def _single_token(word: bytes) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.array([1], np.int32), np.array([len(word)], np.int32)
