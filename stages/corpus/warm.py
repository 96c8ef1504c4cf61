"""Compiles the stage's kernels ahead of the first run: `python -m stages.corpus.warm`.

It builds a corpus of a few documents with every step enabled; numba caches the compiled kernels beside the sources.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from stages.corpus import CorpusConfig, corpus, inputs_of
from stages.store import Store

SUBJECTS = (
    "Asthma",
    "Gout",
    "Anaemia",
    "Migraine",
    "Measles",
    "Mumps",
    "Rickets",
    "Scurvy",
    "Malaria",
    "Cholera",
    "Flu",
)


def main() -> None:
    """Runs the stage once on a few invented pages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = [page for subject in SUBJECTS for page in _pages(subject)]
        lines = [json.dumps({"title": subject, "text": text}, ensure_ascii=False) for subject, text in pages]
        (folder / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
        question = {
            "id": 1,
            "question": "Which of these diseases was known to the doctors of the time before there were books?",
        }
        (folder / "exam.jsonl").write_text(json.dumps(question))
        config = CorpusConfig.model_validate(
            {
                "sources": {"pages": {"location": str(folder / "pages.jsonl")}},
                "decontamination": {"sets": {"exam": str(folder / "exam.jsonl")}},
                "filters": {"fineweb": {}, "length": {}},
                "workers": 1,
            }
        )
        corpus.run(config, inputs_of(config), Store(folder / "store"))


def _pages(subject: str) -> list[tuple[str, str]]:
    body = (
        f"{subject} is a disease that doctors have known for long — and «written» about, too. It is described by "
        f"its symptoms and by what helps against them; of {subject.lower()} we say no more than that on this page.\n\n"
        "- The patient is asked how it began, what made it worse and what made it better.\n"
        "- The doctor writes to someone@example.org, or calls 301-555-0134 from 192.0.2.44.\n\n"
    )
    footer = "Copyright Example Health Library, all rights reserved by those who wrote it."
    paragraph = (
        "This paragraph stands in every page of the library, whatever the page is about, and says nothing of it at all."
    )
    first = f"{body}{paragraph}\n\nSome words stand at the end of this page only, about {subject}.\n{footer}"
    return [(subject, first), (subject, f"{first}\n"), (subject, f"Once more: {body} {subject} and a few other words.")]


if __name__ == "__main__":
    main()
