"""The location of a model's or a tokenizer's files: a folder, an installed package, or the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from stages.packages import SCHEME, find_in_package
from stages.store.errors import ConfigError, InputError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "*.jinja")
"""Files of a tokenizer, which may be in a model's folder."""

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?")


def find_location(setting: str, name: str, files: Sequence[str] = TOKENIZER_FILES) -> str:
    """The absolute path or URL of a folder.

    Args:
        setting: the key in the recipe, for messages.
        name: an absolute path, any fsspec URL, `package://DISTRIBUTION/PATH`, or a hub id, `owner/name` or
            `owner/name@revision` (branch, tag or commit). Without a revision: the newest on the hub, or the cached one
            while the hub is unreachable.
        files: patterns of the files to download from the hub, as `list_files` takes them.

    Raises:
        ConfigError: a relative path, or an invalid hub id or package location.
        InputError: the package is not installed, or has no such file; the hub has no such model, or is unreachable
            and the model not cached.
    """
    if name.startswith(SCHEME):
        return find_in_package(setting, name)
    if "://" in name or os.path.isabs(os.path.expanduser(name)):
        return name
    found = _HUB_ID.fullmatch(name)
    if found is None:
        raise ConfigError(f"{setting}: {name!r} is neither an absolute path, a URL, nor a hub id such as owner/name")
    # Imported here: it takes half a second, which a folder does not need.
    from huggingface_hub import snapshot_download

    patterns = [pattern.removeprefix("/") for pattern in files]  # the hub's are of whole paths
    try:
        return snapshot_download(found["repository"], revision=found["revision"], allow_patterns=patterns)
    except Exception as error:  # the client also raises errors of its HTTP library
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(
            f"{setting}: cannot download {name} from the Hugging Face Hub ({reason}); without the hub, copy its files "
            "into a folder and set its absolute path"
        ) from error
