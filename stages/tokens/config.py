"""What the tokens stage is asked to make."""

from __future__ import annotations

from pydantic import Field

from stages.artifact.config import Config, how


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
    tokenizer: str | None = how(None)
    """A tokenizer to use instead of training one: its folder (absolute path or URL), or a hub id, `owner/name` or
    `owner/name@revision`. A model that is trained on needs its own. Its content decides what is made, so whoever runs
    the stage lists the folder and gives the listing as input `tokenizer`."""
    workers: int = how(0, ge=0)
    """Threads that train the tokenizer and encode; 0 takes every core."""
