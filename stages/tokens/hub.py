"""Location of an existing tokenizer: a folder, or a model on the Hugging Face Hub (or in its cache)."""

from __future__ import annotations

import os
import re

from stages.store.errors import ConfigError, InputError

PATTERNS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "*.jinja")
"""Files of a tokenizer, which may be in a model's folder."""

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?")


def tokenizer_location(tokenizer: str) -> str:
    """The absolute path or URL of a tokenizer's folder.

    Args:
        tokenizer: an absolute path, any fsspec URL, or a hub id, `owner/name` or `owner/name@revision` (branch, tag or
            commit). Without a revision: the newest on the hub, or the cached one while the hub is unreachable.

    Raises:
        ConfigError: a relative path, or an invalid hub id.
        InputError: the hub has no such tokenizer, or is unreachable and the tokenizer not cached.
    """
    if "://" in tokenizer or os.path.isabs(os.path.expanduser(tokenizer)):
        return tokenizer
    found = _HUB_ID.fullmatch(tokenizer)
    if found is None:
        raise ConfigError(
            f"tokens.tokenizer: {tokenizer!r} is neither an absolute path, a URL, nor a hub id such as owner/name"
        )
    # Imported here: it takes half a second, which a folder does not need.
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(found["repository"], revision=found["revision"], allow_patterns=list(PATTERNS))
    except Exception as error:  # the client also raises errors of its HTTP library
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"tokens.tokenizer: cannot download {tokenizer} from the Hugging Face Hub ({reason}); without the hub, "
            "copy the model's tokenizer files into a folder and set its absolute path"
        ) from error
