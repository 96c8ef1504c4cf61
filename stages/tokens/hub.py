"""Where an existing tokenizer lies: in a folder, or with a model of the Hugging Face Hub (or in the hub's cache)."""

from __future__ import annotations

import os
import re

from stages.store.errors import ConfigError, InputError

PATTERNS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "*.jinja")
"""Files of a tokenizer; beside them may lie a whole model."""

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?")


def tokenizer_location(tokenizer: str) -> str:
    """The absolute path or URL of a tokenizer's folder.

    Args:
        tokenizer: an absolute path, any fsspec URL, or a hub id, `owner/name` or `owner/name@revision` (branch, tag or
            commit). Without a revision it is the hub's newest; while the hub is away, what its cache holds.

    Raises:
        ConfigError: a relative path, or no hub id.
        InputError: the hub has no such tokenizer, or is away and the cache does not hold it.
    """
    if "://" in tokenizer or os.path.isabs(os.path.expanduser(tokenizer)):
        return tokenizer
    found = _HUB_ID.fullmatch(tokenizer)
    if found is None:
        raise ConfigError(
            f"tokens.tokenizer: {tokenizer!r} is neither an absolute path, a URL, nor a hub id such as owner/name"
        )
    # Half a second that a folder does not cost.
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(found["repository"], revision=found["revision"], allow_patterns=list(PATTERNS))
    except Exception as error:  # besides its own errors the client lets those of its HTTP library through
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"tokens.tokenizer: {tokenizer} cannot be had from the Hugging Face Hub ({reason}); without the hub, copy "
            "the model's tokenizer files into a folder and give its absolute path"
        ) from error
