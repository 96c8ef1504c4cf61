"""Which licence a model's folder stands under."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stages.corpus.policy import UNKNOWN, normalize_license

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_CARD_BYTES = 1 << 20
_SPDX = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "openrail": "LicenseRef-openrail",
    "llama2": "LicenseRef-llama2",
    "llama3": "LicenseRef-llama3",
    "llama3.1": "LicenseRef-llama3.1",
    "llama3.2": "LicenseRef-llama3.2",
}
"""The hub's names of licences, in SPDX's."""


def find_license(folder: Path) -> str:
    """The licence in the front matter of a folder's README.md, else `unknown`.

    A licence's text alone (a LICENSE file) does not count: nothing is guessed.
    """
    try:
        with (folder / "README.md").open("rb") as file:
            found = _FRONT_MATTER.match(file.read(_CARD_BYTES).decode("utf-8", "replace").replace("\r\n", "\n"))
        card = yaml.safe_load(found[1]) if found else None
    except (OSError, yaml.YAMLError):
        return UNKNOWN
    return license_of_card(card) if isinstance(card, dict) else UNKNOWN


def license_of_card(card: Mapping[str, Any]) -> str:
    """The licence that a model's card names, in SPDX's words, else `unknown`."""
    names = card.get("license")
    if not isinstance(names, str) or not names.isprintable() or len(names) > 100:
        return UNKNOWN
    if names == "other":  # its name stands beside it
        name = str(card.get("license_name") or "")
        return f"LicenseRef-{name}" if re.fullmatch(r"[A-Za-z0-9.-]{1,80}", name) else UNKNOWN
    return _SPDX.get(names.lower(), normalize_license(names))
