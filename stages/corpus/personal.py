"""Personal data is replaced by placeholders. Patterns are narrow: medical text is full of numbers.

What is found: e-mail addresses; telephone numbers in North American form with separators, and international ones with
a leading plus; US social security numbers in dashed form; IPv4 addresses; medical record numbers that are called so.
What is not: names, street addresses, dates of birth, numbers in other national forms. A first octet below 8 is not
taken for an address, because enzyme numbers (EC 3.4.21.4) and versions look the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "email": re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@])"),
    "mrn": re.compile(
        r"\b(?:MRN|[Mm]edical [Rr]ecord (?:[Nn]umber|[Nn]o\.?))(?P<keep>[\s:#-]{0,3}(?:is )?)"
        r"(?P<number>[A-Z]{0,3}-?\d{4,12})\b"
    ),
    "ssn": re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    "phone": re.compile(
        r"(?<![\w.+-])(?:"
        r"(?:\+?1[-. ]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-. ]\d{4}"
        r"|\+?1[-. ][2-9]\d{2}[-. ][2-9]\d{2}[-. ]\d{4}"
        r"|\+[2-9]\d{0,2}(?:[-. ]\(?\d{1,4}\)?){2,5}"
        r")(?![\w-]|\.\d)"
    ),
    "ip": re.compile(
        rf"(?<![\w.-])(?<!EC )(?<!EC:)(?<!version )(?<!Version )"
        rf"(?:[89]|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])(?:\.{_OCTET}){{3}}(?![\w-]|\.\d)"
    ),
}
"""In the order in which they are applied: an address of mail before what could be found inside it."""

_POSSIBLE = re.compile(r"@|\d{4}|\.\d")
"""What stands in every piece of personal data; most texts have none of it and are done."""

PLACEHOLDERS = {kind: f"[{kind.upper()}]" for kind in _PATTERNS}


def replace_personal_data(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replaces each piece of personal data by its placeholder; returns the text and how many of each kind."""
    wanted = set(kinds)
    counts: dict[str, int] = {}
    if not _POSSIBLE.search(text):
        return text, counts
    for kind, pattern in _PATTERNS.items():
        if kind not in wanted or (kind == "email" and "@" not in text):
            continue
        text, found = pattern.subn(lambda match, kind=kind: _placeholder(kind, match), text)  # type: ignore[misc]
        if found:
            counts[kind] = found
    return text, counts


def _placeholder(kind: str, match: re.Match[str]) -> str:
    if kind != "mrn":
        return PLACEHOLDERS[kind]
    start = match.start("number") - match.start()
    return match[0][:start] + PLACEHOLDERS[kind]
