"""Junk documents, by subkind, for the quality filters to remove."""

# ruff: noqa: SIM905 (word lists read best as words)
from __future__ import annotations

import random
from collections.abc import Callable

from stages.sample.biomed.documents import Author

_SYLLABLES = "lor em ip sum dol sit am et con sec tur adi pis cing el it sed eius mod tem por inc id unt ut lab".split()
_MENU = (
    "HOME DEPARTMENTS APPOINTMENTS CARDIOLOGY NEUROLOGY PHARMACY VISITORS PARKING CAREERS NEWS EVENTS DONATE LOGIN "
    "CONTACT MAPS BILLING RADIOLOGY PEDIATRICS ONCOLOGY SURGERY LABORATORY LIBRARY RESEARCH PRESS SITEMAP HELP"
).split()
_SYMBOLS = (
    "###",
    "***",
    "$$",
    "%%",
    "~~~",
    "<<>>",
    "@@@",
    "^^",
    "||",
    "==",
    "+-+",
    "...",
    "//",
    "#",
    "&&",
    "0x",
)


def _repeated_lines(rng: random.Random, author: Author) -> str:
    lines = [author.line() for _ in range(1 + rng.randrange(2))]
    return "\n".join(lines * rng.randrange(8, 20))


def _symbol_noise(rng: random.Random, author: Author) -> str:
    words = author.line().split()
    tokens = [
        rng.choice(_SYMBOLS) if rng.random() < 0.55 else rng.choice((*words, str(rng.randrange(10_000))))
        for _ in range(rng.randrange(90, 220))
    ]
    return " ".join(tokens)


def _too_short(rng: random.Random, author: Author) -> str:
    return f"{author.line()} See page {rng.randrange(2, 900)}."


def _no_stop_words(rng: random.Random, author: Author) -> str:
    sentences = []
    for _ in range(rng.randrange(9, 18)):
        words = ["".join(rng.choices(_SYLLABLES, k=rng.randrange(2, 4))) for _ in range(rng.randrange(7, 14))]
        sentences.append(" ".join(words).capitalize() + ".")
    return " ".join(sentences)


def _all_caps_menu(rng: random.Random, author: Author) -> str:
    return "\n".join(" | ".join(rng.sample(_MENU, rng.randrange(3, 7))) for _ in range(rng.randrange(14, 30)))


JUNK: dict[str, Callable[[random.Random, Author], str]] = {
    "repeated_lines": _repeated_lines,
    "symbol_noise": _symbol_noise,
    "too_short": _too_short,
    "no_stop_words": _no_stop_words,
    "all_caps_menu": _all_caps_menu,
}
"""Generator of a text, by subkind."""
