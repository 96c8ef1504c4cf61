"""Defects that are planted in biomedical documents: near duplicates, boilerplate, other languages, junk, and copied
evaluation questions. See ``stages.sample.planted`` for those that all domains have.
"""

# ruff: noqa: SIM905 (word lists read best as words)
from __future__ import annotations

import random
from typing import Any

from stages.sample.biomed.documents import Author
from stages.sample.biomed.foreign import foreign_text
from stages.sample.biomed.junk import JUNK
from stages.sample.document import Document
from stages.sample.forms import fill
from stages.sample.planted import Finding, copy_of

SHINGLE = 5
"""Words in a shingle, by which near duplicates are measured."""

NEAR_JACCARD = 0.75
"""The least Jaccard similarity of a planted near duplicate to its original."""

BOILERPLATE = (
    "Home | About | Topics | Contact | Search | Sign in",
    "This site uses cookies. By continuing to browse you accept our cookie policy.",
    "Copyright 2025 Synthetic Health Library. All rights reserved.",
    "Share this page: e-mail, print, bookmark.",
    "Please read our terms of use and privacy policy before you rely on this page.",
    "You are viewing the archived edition. Click here for the latest version.",
    "Subscribe to our newsletter and never miss an update.",
    "Javascript must be enabled to view the comments on this page.",
)
"""Lines that occur verbatim in many documents; the even ones above the text, the odd ones below it."""

_NEUTRAL = (
    "usually often clearly broadly mostly partly mainly simply also still again nearly fairly largely rather quite "
    "here there today later first further overall indeed perhaps likewise thus then always sometimes rarely together"
).split()


def shingles(text: str, width: int = SHINGLE) -> set[tuple[str, ...]]:
    """All runs of ``width`` words, in lower case, without punctuation at the words' ends."""
    words = [word for raw in text.lower().split() if (word := raw.strip(".,:;?!()\"'"))]
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}


def jaccard(one: set[tuple[str, ...]], two: set[tuple[str, ...]]) -> float:
    """Size of the intersection over size of the union."""
    return len(one & two) / len(one | two) if one or two else 1.0


def near_duplicate_text(rng: random.Random, text: str) -> tuple[str, int]:
    """``text`` with 2 to 6 % of its words replaced, in few runs, and how many were replaced.

    A replaced word breaks up to five shingles, so scattered replacements of 6 % would leave a Jaccard
    similarity of about one half; runs keep it above ``NEAR_JACCARD`` at the same share of words.
    """
    tokens = text.split(" ")
    spread, before = len(tokens), shingles(text)
    while True:
        replaced = max(2, round(rng.uniform(0.022, 0.055) * spread))
        limit = 0.115 * (spread - SHINGLE + 1) - replaced
        runs = max(1, min(4, replaced, int(limit / (SHINGLE - 1))))
        changed = list(tokens)
        cuts = sorted(rng.sample(range(1, replaced), runs - 1)) if runs > 1 else []
        touched: set[int] = set()
        for size in (b - a for a, b in zip([0, *cuts], [*cuts, replaced], strict=True)):
            start = rng.randrange(spread - size)
            for place in range(start, start + size):
                old = changed[place]
                # Words at a line break and labels stay as they are: the words differ, never the layout.
                if "\n" in old or not old.rstrip(".,;?").isalpha():
                    continue
                mark = old[len(old.rstrip(".,;?")) :]
                new = rng.choice(_NEUTRAL)
                changed[place] = (new.capitalize() if old[0].isupper() else new) + mark
                touched.add(place)
        copy = " ".join(changed)
        share = len(touched) / len(text.split())
        if 0.02 <= share <= 0.06 and jaccard(before, shingles(copy)) >= NEAR_JACCARD:
            return copy, len(touched)


def near_duplicates(rng: random.Random, originals: list[Document]) -> list[Finding]:
    """An edited copy of each original, in the same source."""
    found = []
    for original in originals:
        text, replaced = near_duplicate_text(rng, original.text)
        copy = copy_of(original, text, original.source)
        found.append(Finding("near_duplicate", copy, original, {"replaced_words": replaced}))
    return found


def boilerplate(rng: random.Random, documents: list[Document]) -> list[Finding]:
    """Adds one of a few lines to each document. Few documents get fewer lines, so that each still recurs often."""
    lines = BOILERPLATE[: max(2, min(len(BOILERPLATE), len(documents) // 12))]
    found = []
    for number, document in enumerate(documents):
        index = number % len(lines)
        line = lines[index]
        document.text = f"{document.text}\n\n{line}" if index % 2 else f"{line}\n\n{document.text}"
        found.append(Finding("boilerplate", document, details={"line": line}))
    return found


def languages(rng: random.Random, count: int, sources: list[str]) -> list[Finding]:
    """Documents in Spanish, German and French, in turn."""
    found = []
    for number in range(count):
        lang = ("es", "de", "fr")[number % 3]
        text, group = foreign_text(rng, lang)
        document = Document(rng.choice(sources), text, f"{group}: synthetic text ({lang})", group)
        found.append(Finding("language", document, details={"lang": lang}))
    return found


def junk(rng: random.Random, author: Author, count: int, sources: list[str]) -> list[Finding]:
    """Junk documents, the subkinds in turn, no two of the same text."""
    found: list[Finding] = []
    seen: set[str] = set()
    kinds = list(JUNK)
    while len(found) < count:
        subkind = kinds[len(found) % len(kinds)]
        text = JUNK[subkind](rng, author)
        if text in seen:
            continue
        seen.add(text)
        document = Document(rng.choice(sources), text, "synthetic page", f"page {len(found)}")
        found.append(Finding("junk", document, details={"subkind": subkind}))
    return found


def contaminated(
    rng: random.Random, documents: list[Document], questions: list[dict[str, Any]], leads: tuple[Any, ...]
) -> list[Finding]:
    """Copies one evaluation question word for word, with its answer, into each document."""
    found = []
    for document, question in zip(documents, questions, strict=True):
        lead = fill(rng.choice(leads), rng.random)
        leak = f"{lead} {question['question']} Answer: {question['options'][question['answer']]}."
        paragraphs = document.text.split("\n\n")
        paragraphs.insert(1 + rng.randrange(len(paragraphs)), leak)
        document.text = "\n\n".join(paragraphs)
        found.append(Finding("contaminated", document, details={"question_id": question["id"]}))
    return found
