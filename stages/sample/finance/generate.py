"""Writes the finance sample: a financial company's own data beside public text, a question set, and the truth."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from stages.sample.document import Document
from stages.sample.exam import four_option_questions
from stages.sample.finance.documents import DENIED, LICENSES, OWN, PUBLIC, SHARES, CompanyAuthor, CountryAuthor
from stages.sample.finance.phrases import PERSONAL
from stages.sample.finance.questions import EXAM
from stages.sample.finance.tables import TABLES
from stages.sample.planted import Finding, check_size, exact_duplicates, personal_data
from stages.sample.writing import write_documents, write_rest

DUPLICATES = 0.02
"""Exact duplicates, as a share of the documents that may be used."""

PERSONAL_DATA = 0.03
"""Documents with personal data, as a share of those in the company's own sources."""

README = """\
SYNTHETIC DATA

Everything in this folder is synthetic. The companies, their people, towns, figures and auditors are invented; any
likeness is chance. What is said about countries comes from a table of common knowledge. The texts are made for
testing a data pipeline and are no advice.

documents/<source>/*.jsonl.gz   seven sources: four of the company's own, two public ones, one that may not be used
eval/finance_synthetic.jsonl    a question set made from the same facts in other words
truth.jsonl                     what was planted in which document

Made with seed {seed}, {megabytes} megabytes.
"""


def generate(folder: Path, seed: int = 1, megabytes: float = 6.0) -> dict[str, Any]:
    """Writes the sample to ``folder`` and returns its counts. The same seed and size give the same bytes.

    Existing files of the same names are replaced; ``folder`` should hold nothing else.

    Raises:
        ValueError: `megabytes` is too small to plant every kind of defect.
    """
    check_size(megabytes)
    # A generator of its own, so that the questions do not depend on the sample's size.
    questions = four_option_questions(random.Random(f"finance exam {seed}"), EXAM)
    rng = random.Random(f"finance {seed}")
    documents = _clean_documents(rng, megabytes)
    findings = _plant(rng, documents)
    counts = write_documents(folder, rng, documents, LICENSES)
    rows = sorted((finding.row() for finding in findings), key=lambda row: (row["id"], row["kind"]))
    readme = README.format(seed=seed, megabytes=f"{megabytes:g}")
    return write_rest(folder, counts, rows, {EXAM.name: questions}, len(TABLES.facts), readme)


def _clean_documents(rng: random.Random, megabytes: float) -> dict[str, list[Document]]:
    """Clean documents by source, fewer than the size asks for: duplicates are added later."""
    companies, countries = CompanyAuthor(rng), CountryAuthor(rng)
    clean: dict[str, list[Document]] = {}
    for source, share in SHARES.items():
        author = companies if source in (*OWN, DENIED) else countries
        left = megabytes * 1e6 * share * (1 - DUPLICATES)
        clean[source] = []
        while left > 0:
            clean[source].append(author.write(source))
            left -= len(clean[source][-1].text)
    return clean


def _plant(rng: random.Random, documents: dict[str, list[Document]]) -> list[Finding]:
    """Plants every kind in documents of its own, adds the new ones to ``documents``, and returns the findings."""
    findings = [Finding("denied_license", document) for document in documents[DENIED]]
    own = [document for source in OWN for document in documents[source]]
    rng.shuffle(own)
    personal = own[: max(1, round(PERSONAL_DATA * len(own)))]
    findings += personal_data(rng, personal, PERSONAL)
    taken = {id(document) for document in personal}
    for sources in (OWN, PUBLIC):  # copies of the company's own documents stay in its own sources
        pool = [document for source in sources for document in documents[source] if id(document) not in taken]
        originals = rng.sample(pool, max(1, round(DUPLICATES * len(pool))))
        copies = exact_duplicates(rng, originals, list(sources))
        for finding in copies:
            documents[finding.document.source].append(finding.document)
        findings += copies
    return findings
