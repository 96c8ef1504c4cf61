"""Vectorized decoding of tokens to bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.tokens.byte_level import byte_characters


@dataclass(frozen=True)
class TokenText:
    """The symbols of each token of a vocabulary of V: the values of its bytes, or others."""

    symbols: NDArray[np.uint16]
    """Those of all tokens, concatenated."""
    offsets: NDArray[np.int64]
    """Start of each token's symbols, [V + 1]."""

    @classmethod
    def load(cls, folder: Path, eos_id: int, at_end: NDArray[np.uint16]) -> TokenText:
        """The vocabulary of a tokens artifact.

        Args:
            folder: the artifact's local folder.
            at_end: symbols of EOS; other special tokens have none.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=False)
        added = tokenizer.get_added_tokens_decoder()
        text: dict[int, list[int]] = {
            index: [byte_of[character] for character in token]
            for token, index in vocabulary.items()
            if index not in added
        }
        text |= {index: [] if token.special else list(token.content.encode()) for index, token in added.items()}
        text[eos_id] = at_end.tolist()
        parts = [text.get(index, []) for index in range(max(text) + 1)]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.array([symbol for part in parts for symbol in part], np.uint16), offsets)

    def of(self, tokens: NDArray[np.integer]) -> NDArray[np.uint16]:
        """The concatenated symbols of tokens [n]."""
        starts = self.offsets[tokens]
        sizes = self.offsets[np.asarray(tokens, np.int64) + 1] - starts
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        return self.symbols[np.repeat(starts - (ends - sizes), sizes) + np.arange(total)]
