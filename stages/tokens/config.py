"""Configuration of the tokens stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from stages.store.config import Config, runtime_field

ALPHABETS = {"dna": "ACGT", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
"""Letters of k-mers. Ambiguity codes (N, X) are single tokens: words with them would be most of the vocabulary but
hardly occur in text."""

MAX_KMERS = 1 << 20


class KmersConfig(Config):
    """Tokens of k letters of an alphabet; any other byte is a token of its own."""

    alphabet: Literal["dna", "rna", "protein"] | str = "dna"
    """dna (ACGT), rna (ACGU), protein (the 20 amino acids), or the letters themselves: `ACGTN`, `ACGTacgt`."""
    k: int = Field(1, ge=1, le=8)
    """Letters per token; 1 is a character tokenizer. A prompt is split every k letters from its beginning."""

    @field_validator("alphabet")
    @classmethod
    def _alphabet_is_valid(cls, value: str) -> str:
        letters = ALPHABETS.get(value, value)
        if not letters or len(set(letters)) < len(letters) or not all("!" <= c <= "~" for c in letters):
            raise ValueError(
                f"{value!r} is not an alphabet: use {', '.join(ALPHABETS)}, or distinct printable ASCII letters"
            )
        return value

    @model_validator(mode="after")
    def _vocabulary_size_is_limited(self) -> KmersConfig:
        size = 257 + sum(len(self.letters) ** size for size in range(2, self.k + 1))
        if size > MAX_KMERS:
            raise ValueError(
                f"k = {self.k} with {len(self.letters)} letters needs a vocabulary of {size:,} tokens, more than "
                f"{MAX_KMERS:,}; use a smaller k"
            )
        return self

    @property
    def letters(self) -> str:
        """The alphabet's letters."""
        return ALPHABETS.get(self.alphabet, self.alphabet)


class TokensConfig(Config):
    """Tokenizer and token stream. With an input `tokenizer` (the listing of its folder) none is trained."""

    vocab_size: int = Field(16384, ge=257, le=1 << 20)
    """Maximum tokens of the tokenizer that is trained, including EOS and the 256 bytes. A corpus with few different
    words gives fewer; the artifact's counts have the number."""
    sequence_length: int = Field(2048, ge=8, le=1 << 20)
    """Tokens in a row of a shard (S)."""
    shard_rows: int = Field(16384, ge=1, le=1 << 20)
    """Rows in a shard. Use a power of two, since samples of several rows never cross a shard."""
    tokenizer_training_bytes: int = Field(100_000_000, ge=1)
    """Approximate text that the tokenizer is trained on: documents chosen by the hash of their id, or all of them."""
    kmers: KmersConfig | None = None
    """For DNA, RNA and protein: a k-mer or character tokenizer, which is not trained."""
    tokenizer: str | None = runtime_field(None)
    """A tokenizer to use instead of training one: its folder (absolute path or URL), or a hub id, `owner/name` or
    `owner/name@revision`. Continued pretraining needs the base model's. Its content, not its location, is part of the
    fingerprint: the caller of the stage passes the folder's listing as input `tokenizer`."""
    workers: int = runtime_field(0, ge=0)
    """Threads that train the tokenizer and encode; 0: one per core."""

    @model_validator(mode="after")
    def _only_one_tokenizer(self) -> TokensConfig:
        if self.kmers is not None and self.tokenizer is not None:
            raise ValueError("kmers and tokenizer exclude each other: both define the tokenizer; set one of them")
        return self
