"""Question sets: one reader for all that use them, evaluation and the corpus' decontamination."""

from __future__ import annotations

from stages.questions.files import SUFFIXES, array_hint, set_name
from stages.questions.options import plain
from stages.questions.reader import QuestionSet, Row, field_names, read_rows

__all__ = ["SUFFIXES", "QuestionSet", "Row", "array_hint", "field_names", "plain", "read_rows", "set_name"]
