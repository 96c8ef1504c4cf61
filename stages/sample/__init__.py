"""The embedded samples: seeded generators of synthetic documents with known defects, biomedical ones and others.

A few hundred well established facts (drugs, diseases, organisms) become documents in four sources, two
question sets in other words, and a truth file that says what was planted where; so filters and deduplication
are measured, not believed. ``finance`` is another one, a company's own documents beside public ones. Needs the
standard library only.
"""

from stages.sample.documents import DENIED, LICENSES
from stages.sample.generate import generate

__all__ = ["DENIED", "LICENSES", "generate"]
