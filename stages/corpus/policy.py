"""The policy: which licences, sources and URLs may be used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stages.corpus.config import PolicyConfig

UNKNOWN = "unknown"
_PLAIN = {
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "mit license": "MIT",
    "gpl": "GPL-3.0-only",
}
_CREATIVE_COMMONS = re.compile(r"cc[ -]?(by(?:[ -](?:nc|nd|sa))*)[ -](\d\.\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Removal:
    """Why a document is removed: the rule, the measured value, and the threshold that it exceeded."""

    rule: str
    value: float = 0.0
    threshold: float = 0.0
    detail: str = ""
    survivor: str = ""
    """doc_id of the document that is kept in its place, for duplicates."""


def normalize_license(value: object) -> str:
    """The SPDX identifier (`CC-BY-4.0`) of a licence as written in records (`CC BY 4.0`); `unknown` if it is missing.

    Unrecognized values are returned unchanged, except for surrounding white space.
    """
    text = " ".join(str(value).split()) if value not in (None, "") else ""
    if not text or text.lower() in ("none", "null", "n/a", UNKNOWN):
        return UNKNOWN
    match = _CREATIVE_COMMONS.fullmatch(text)
    if match:
        return f"CC-{match[1].upper().replace(' ', '-')}-{match[2]}"
    return _PLAIN.get(text.lower(), text)


def policy_removal(config: PolicyConfig, source: str, license: str, url: str) -> Removal | None:
    """The first rule of the policy that forbids a document, None if it may be used."""
    if source in config.denied_sources:
        return Removal("policy_source", detail=f"source {source} is denied")
    name = license.casefold()
    if name in {item.casefold() for item in config.denied_licenses}:
        return Removal("policy_license", detail=f"licence {license} is denied")
    allowed = config.allowed_licenses
    if allowed is not None and name not in {item.casefold() for item in allowed}:
        return Removal("policy_license", detail=f"licence {license} is not allowed")
    for pattern in config.denied_urls:
        if url and fnmatchcase(url.casefold(), pattern.casefold()):
            return Removal("policy_url", detail=f"address fits {pattern}")
    return None
