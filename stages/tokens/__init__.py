"""Documents to tokens: tokenizer, token stream in mapped shards, the order in which training reads it, batches.

The stage is imported on first access: loading batches must not import the tokenizers or the store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.tokens.build import tokens
    from stages.tokens.config import TokensConfig

__all__ = ["TokensConfig", "tokens"]

_MODULES = {"TokensConfig": "stages.tokens.config", "tokens": "stages.tokens.build"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
