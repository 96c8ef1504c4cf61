"""Question sets: one reader for all that use them, evaluation and the corpus' decontamination."""

from __future__ import annotations

from stages.questions.files import SUFFIXES, set_name
from stages.questions.options import plain
from stages.questions.reader import QuestionSet, Row, read_rows

__all__ = ["SUFFIXES", "QuestionSet", "Row", "plain", "read_rows", "set_name"]
