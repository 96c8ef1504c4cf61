"""Documents to tokens: tokenizer, token stream in mapped shards, the order in which training reads it, batches.

The stage is imported when it is asked for: whoever only loads batches waits for neither tokenizers nor the store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.tokens.build import tokens
    from stages.tokens.config import TokensConfig

__all__ = ["TokensConfig", "tokens"]

_HOMES = {"TokensConfig": "stages.tokens.config", "tokens": "stages.tokens.build"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
