"""The embedded sample: a seeded generator of synthetic biomedical documents with known defects.

A few hundred well established facts (drugs, diseases, organisms) become documents in four sources, two
question sets in other words, and a truth file that says what was planted where; so filters and deduplication
are measured, not believed. Needs the standard library only.
"""

from stages.sample.documents import DENIED, LICENSES
from stages.sample.generate import generate

__all__ = ["DENIED", "LICENSES", "generate"]
