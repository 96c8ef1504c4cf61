"""Defects that are planted in documents of any domain, and the truth about them.

Every function takes documents that nothing else is planted in and returns findings that refer to them; ids are filled
in once the sources have their final order. All personal data is fictitious: reserved mail domains, telephone numbers
and networks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from stages.sample.document import Document
from stages.sample.personal import Sentences, personal_sentence

MINIMUM_MEGABYTES = 0.1
"""Size from which a sample has documents enough for every kind of defect."""


def check_size(megabytes: float) -> None:
    """Raises ValueError if a sample of this size is too small to plant every kind of defect."""
    if megabytes < MINIMUM_MEGABYTES:
        raise ValueError(f"a sample of {megabytes} megabytes is too small; it needs at least {MINIMUM_MEGABYTES}")


@dataclass(eq=False)
class Finding:
    """One planted defect: its kind, the document, and what else the truth file says about it."""

    kind: str
    document: Document
    of: Document | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The JSON object for ``truth.jsonl``."""
        row: dict[str, Any] = {"source": self.document.source, "id": self.document.id, "kind": self.kind}
        if self.of is not None:
            row["of"] = self.of.id
        return row | self.details


def copy_of(original: Document, text: str, source: str) -> Document:
    """A further document about the same thing."""
    return Document(source, text, original.title, original.group)


def exact_duplicates(rng: random.Random, originals: list[Document], sources: list[str]) -> list[Finding]:
    """A copy of each original, every third one in another of ``sources``."""
    found = []
    for original in originals:
        source = rng.choice(sources) if rng.random() < 1 / 3 else original.source
        found.append(Finding("exact_duplicate", copy_of(original, original.text, source), original))
    return found


def personal_data(rng: random.Random, documents: list[Document], sentences: Sentences) -> list[Finding]:
    """Puts one to three sentences with personal data into each document."""
    found = []
    for document in documents:
        strings: list[str] = []
        paragraphs = document.text.split("\n\n")
        for _ in range(1 + rng.randrange(3)):
            text, planted = personal_sentence(rng, sentences)
            place = rng.randrange(len(paragraphs))
            paragraphs[place] += " " + text
            strings += [string for string in planted if string not in strings]
        document.text = "\n\n".join(paragraphs)
        found.append(Finding("personal_data", document, details={"strings": strings}))
    return found
