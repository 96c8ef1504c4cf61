"""Evaluation of a model, and the release gate.

`evaluation` scores a model (inputs `model`, `tokens`, `set/<name>`), `verdict` compares two evaluations (inputs
`candidate` and optionally `champion`).
"""

from __future__ import annotations

from typing import Any

from stages.evaluation.config import EvaluationConfig, SetConfig
from stages.evaluation.decide import build_verdict, scores
from stages.evaluation.evaluate import build
from stages.evaluation.gate import GatePolicy, Reason, Scores, Verdict
from stages.evaluation.offline import preload
from stages.evaluation.sets import ROLE, find_sets, question_sets, read_set, scored_sets
from stages.store import Artifact, Stage

evaluation: Stage[EvaluationConfig] = Stage("evaluation", 2, build)
verdict: Stage[GatePolicy] = Stage("verdict", 1, build_verdict)


def table(artifact: Artifact) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of an evaluation's table; all cells are strings."""
    content = artifact.manifest.details["table"]
    return content["columns"], content["rows"]


def reasons(artifact: Artifact) -> Verdict:
    """The verdict in an artifact of kind `verdict`."""
    record = artifact.manifest.details["verdict"]
    return Verdict(record["accepted"], tuple(Reason(**reason) for reason in record["reasons"]))


__all__ = [
    "ROLE",
    "EvaluationConfig",
    "GatePolicy",
    "Reason",
    "Scores",
    "SetConfig",
    "Verdict",
    "evaluation",
    "find_sets",
    "preload",
    "question_sets",
    "read_set",
    "reasons",
    "scored_sets",
    "scores",
    "table",
    "verdict",
]
