"""Sentences with fictitious personal data, and the strings in them."""

# ruff: noqa: SIM905 (word lists read best as words)
from __future__ import annotations

import random

_FIRST = "maria james aisha peter lucia daniel grace oscar helen victor nadia samuel irene thomas clara hugo".split()
_LAST = "lopez miller okafor novak rossi keller silva brandt moreau larsen patel dubois jensen costa weber".split()

Sentences = tuple[tuple[str, tuple[str, ...]], ...]
"""Sentences with slots, such as ``{email}``, and the kinds of personal data in each."""


def _email(rng: random.Random) -> str:
    # example.org, .com and .net are reserved for documentation (RFC 2606).
    domain = rng.choice(("example.org", "mail.example.org", "example.com", "example.net"))
    mark, number = rng.choice((".", "_", "")), rng.choice(("", rng.randrange(99)))
    return f"{rng.choice(_FIRST)}{mark}{rng.choice(_LAST)}{number}@{domain}"


def _phone(rng: random.Random) -> str:
    # 555-0100 to 555-0199 are set aside for fiction.
    area, line = rng.choice((202, 212, 303, 312, 415, 503, 617, 713)), f"01{rng.randrange(100):02d}"
    return rng.choice((f"({area}) 555-{line}", f"{area}-555-{line}", f"+1 {area} 555 {line}", f"{area}.555.{line}"))


def _ssn(rng: random.Random) -> str:
    # Area numbers from 900 are never issued; groups below 50 are no taxpayer numbers either.
    return f"{rng.randrange(900, 1000)}-{rng.randrange(10, 50)}-{rng.randrange(1, 10000):04d}"


def _ip(rng: random.Random) -> str:
    # The three networks that RFC 5737 keeps for documentation.
    return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randrange(1, 255)}"


def _mrn(rng: random.Random) -> str:
    return f"MRN {rng.randrange(1_000_000, 10_000_000)}"


_MAKERS = {"email": _email, "phone": _phone, "ssn": _ssn, "ip": _ip, "mrn": _mrn}


def personal_sentence(rng: random.Random, sentences: Sentences) -> tuple[str, list[str]]:
    """One of ``sentences`` filled in, and the personal strings in it."""
    text, names = rng.choice(sentences)
    values = {name: _MAKERS[name](rng) for name in names}
    return text.format(**values), list(values.values())
