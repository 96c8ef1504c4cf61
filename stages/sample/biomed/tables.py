"""The biomedical fact tables; what they say of drugs, diseases and organisms is well established."""

from __future__ import annotations

from stages.sample.tables import FactTables

UNIVERSAL = frozenset({"supportive care", "nausea", "diarrhea", "anaphylaxis", "liver injury"})
"""Attributes that can be argued for nearly anything of their type."""

TABLES = FactTables("stages.sample.biomed", ("drugs", "diseases", "organisms"), UNIVERSAL)

SUBJECTS = {"drugs": "pharmacology", "diseases": "genetics", "organisms": "microbiology"}
"""The examination subject that each table belongs to."""
