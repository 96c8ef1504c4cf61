"""Documents to tokens: tokenizer, token stream in mapped shards, the order in which training reads it, batches."""

from stages.tokens.build import tokens
from stages.tokens.config import TokensConfig

__all__ = ["TokensConfig", "tokens"]
