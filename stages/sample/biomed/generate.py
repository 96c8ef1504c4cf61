"""Writes the biomedical sample: documents, question sets, and a truth file with what was planted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from stages.sample.biomed import phrases, planted
from stages.sample.biomed.documents import DENIED, LICENSES, SHARES, Author
from stages.sample.biomed.questions import MEDQA, abstract_questions
from stages.sample.biomed.tables import TABLES
from stages.sample.document import Document
from stages.sample.exam import four_option_questions
from stages.sample.planted import Finding, check_size, exact_duplicates, personal_data
from stages.sample.writing import write_documents, write_rest

PLANTED_SHARES = {
    "exact_duplicate": 0.03,
    "near_duplicate": 0.04,
    "boilerplate": 0.08,
    "language": 0.02,
    "personal_data": 0.04,
    "junk": 0.03,
}
"""Share of all documents, by kind. Duplicates, languages and junk are new documents; others change existing ones."""

CONTAMINATED = 40
"""Documents with a copied evaluation question, in a sample of the usual size; fewer in a smaller one."""

README = """\
SYNTHETIC DATA

Everything in this folder is synthetic. The documents were assembled by a seeded generator from a table of
medical facts through sentence forms; the patients, reviewers, data sets, abstracts and personal data in them
are invented. The texts are made for testing a data pipeline and are no medical advice.

documents/<source>/*.jsonl.gz   four sources, each under its own licence
eval/*.jsonl                    question sets made from the same facts in other words
truth.jsonl                     what was planted in which document

Made with seed {seed}, {megabytes} megabytes.
"""


def generate(folder: Path, seed: int = 1, megabytes: float = 10.0) -> dict[str, Any]:
    """Writes the sample to ``folder`` and returns its counts. The same seed and size give the same bytes.

    Existing files of the same names are replaced; ``folder`` should hold nothing else.
    """
    check_size(megabytes)
    # One generator for each concern, so that the question sets do not depend on the sample's size.
    # Seeding with a string hashes it with SHA-512: independent of PYTHONHASHSEED.
    exam = random.Random(f"exam {seed}")
    medqa, pubmedqa = four_option_questions(exam, MEDQA), abstract_questions(exam)
    rng = random.Random(f"documents {seed}")
    author = Author(rng)
    documents = _clean_documents(author, megabytes)
    findings, further = _plant(rng, author, documents, medqa, pubmedqa)
    for document in further:
        documents[document.source].append(document)

    counts = write_documents(folder, rng, documents, LICENSES)
    rows = sorted((finding.row() for finding in findings), key=lambda row: (row["id"], row["kind"]))
    sets = {"medqa_synthetic": medqa, "pubmedqa_synthetic": pubmedqa}
    readme = README.format(seed=seed, megabytes=f"{megabytes:g}")
    return write_rest(folder, counts, rows, sets, len(TABLES.facts), readme)


def _clean_documents(author: Author, megabytes: float) -> dict[str, list[Document]]:
    """Clean documents by source, fewer than the size asks for: planted documents are added later."""
    # Junk and foreign texts are shorter than the rest, so their share of the text is below their share of the
    # documents.
    clean_share = 1.0 - 0.09
    clean: dict[str, list[Document]] = {}
    for source, share in SHARES.items():
        budget = megabytes * 1e6 * share * (1.0 if source == DENIED else clean_share)
        clean[source] = []
        while budget > 0:
            document = author.write(source)
            clean[source].append(document)
            budget -= len(document.text)
    return clean


def _plant(
    rng: random.Random,
    author: Author,
    clean: dict[str, list[Document]],
    medqa: list[dict[str, Any]],
    pubmedqa: list[dict[str, Any]],
) -> tuple[list[Finding], list[Document]]:
    """Plants every kind in documents of its own; returns the findings and the new documents."""
    open_sources = [source for source in clean if source != DENIED]
    total = sum(map(len, clean.values())) / 0.88
    number = {kind: max(1, round(share * total)) for kind, share in PLANTED_SHARES.items()}
    leaks = max(2, min(CONTAMINATED, round(total / 150)))

    notes = list(clean["synthetic_notes"])
    rng.shuffle(notes)
    personal = notes[: min(number["personal_data"], len(notes) // 2)]
    taken = {id(document) for document in personal}
    pool = [document for source in open_sources for document in clean[source] if id(document) not in taken]
    rng.shuffle(pool)

    def take(count: int) -> list[Document]:
        return [pool.pop() for _ in range(count)]

    # An original is taken from the pool too, so that nothing else is planted in it and it stays equal to its
    # copy.
    added = exact_duplicates(rng, take(number["exact_duplicate"]), open_sources)
    added += planted.near_duplicates(rng, take(number["near_duplicate"]))
    added += planted.languages(rng, number["language"], open_sources)
    added += planted.junk(rng, author, number["junk"], open_sources)
    changed = planted.boilerplate(rng, take(number["boilerplate"]))
    changed += personal_data(rng, personal, phrases.PERSONAL)
    leaked = rng.sample(medqa, leaks - leaks // 4) + rng.sample(pubmedqa, leaks // 4)
    changed += planted.contaminated(rng, take(leaks), leaked, phrases.LEAKS)
    return added + changed, [finding.document for finding in added]
