"""What the tokens stage is asked to make."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from stages.store.config import Config, how

ALPHABETS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
"""Letters that k-mers are made of. Codes for doubt (N, X) are single tokens: words with them would be most of the
vocabulary and hardly any of the text."""

MOST_KMERS = 1 << 20


class KmersConfig(Config):
    """Tokens of k letters of an alphabet; any other byte is a token of its own."""

    alphabet: Literal["dna", "rna", "protein"] | str = "dna"
    """dna (ACGT), rna (ACGU), protein (the 20 amino acids), or the letters themselves: `ACGTN`, `ACGTacgt`."""
    k: int = Field(1, ge=1, le=8)
    """Letters a token; 1 is a tokenizer of characters. A prompt is cut every k letters from its beginning."""

    @field_validator("alphabet")
    @classmethod
    def _is_an_alphabet(cls, value: str) -> str:
        letters = ALPHABETS.get(value, value)
        if not letters or len(set(letters)) < len(letters) or not all("!" <= c <= "~" for c in letters):
            raise ValueError(
                f"{value!r} is no alphabet: name {', '.join(ALPHABETS)}, or give printable ASCII letters, each once"
            )
        return value

    @model_validator(mode="after")
    def _is_not_too_large(self) -> KmersConfig:
        size = 257 + sum(len(self.letters) ** size for size in range(2, self.k + 1))
        if size > MOST_KMERS:
            raise ValueError(
                f"k-mers of {self.k} of {len(self.letters)} letters make a vocabulary of {size:,}, more than "
                f"{MOST_KMERS:,}; use a smaller k"
            )
        return self

    @property
    def letters(self) -> str:
        """The alphabet's letters."""
        return ALPHABETS.get(self.alphabet, self.alphabet)


class TokensConfig(Config):
    """Tokenizer and token stream. With an input `tokenizer` (a listing of its folder) none is trained."""

    vocabulary: int = Field(16384, ge=257, le=1 << 20)
    """Most tokens of the tokenizer that is trained, EOS and the 256 bytes included. A corpus with too few different
    words gives fewer; the counts say how many there are."""
    sequence_length: int = Field(2048, ge=8, le=1 << 20)
    """S, tokens in a row of a shard."""
    shard_rows: int = Field(16384, ge=1, le=1 << 20)
    """Rows in a shard. Use a power of two: samples of more rows never cross a shard."""
    sample_bytes: int = Field(100_000_000, ge=1)
    """About how much text the tokenizer is trained on: documents chosen by hash of their id, all if there is less."""
    kmers: KmersConfig | None = None
    """For DNA, RNA and protein: a tokenizer of k-mers or characters. Nothing is trained then."""
    tokenizer: str | None = how(None)
    """A tokenizer to use instead of training one: its folder (absolute path or URL), or a hub id, `owner/name` or
    `owner/name@revision`. A model that is trained on needs its own. Its content decides what is made, so whoever runs
    the stage lists the folder and gives the listing as input `tokenizer`."""
    workers: int = how(0, ge=0)
    """Threads that train the tokenizer and encode; 0 takes every core."""

    @model_validator(mode="after")
    def _one_tokenizer(self) -> TokensConfig:
        if self.kmers is not None and self.tokenizer is not None:
            raise ValueError("kmers and tokenizer: give one of them, both say which tokenizer to use")
        return self
