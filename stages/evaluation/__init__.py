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
from stages.evaluation.general import PATTERNS as GENERAL_FILES
from stages.evaluation.general import GeneralText, package_descriptions, read_general
from stages.evaluation.offline import preload
from stages.evaluation.sets import ROLE, find_sets, question_sets, read_set, scored_sets
from stages.store import Artifact, Stage

evaluation: Stage[EvaluationConfig] = Stage("evaluation", 2, build)
verdict: Stage[GatePolicy] = Stage("verdict", 1, build_verdict)


def table(artifact: Artifact) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of an evaluation's table; all cells are strings."""
    content = artifact.manifest.details["table"]
    return content["columns"], content["rows"]


def beside_base(candidate: Artifact, base: Artifact) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table of two evaluations on the same items: of a model, and of the base that it went on
    from. All cells are strings. Of bits per byte less is better, of accuracy more."""
    before = {(row[0], row[2]): row[3] for row in table(base)[1]}
    rows = []
    for name, _, measure, value, *_ in table(candidate)[1]:
        if old := before.get((name, measure)):
            change = f"{float(value) / float(old) - 1:+.1%}" if float(old) else ""
            rows.append([name, measure, old, value, change])
    return ["set", "measure", "base", "model", "change"], rows


def reasons(artifact: Artifact) -> Verdict:
    """The verdict in an artifact of kind `verdict`."""
    record = artifact.manifest.details["verdict"]
    return Verdict(record["accepted"], tuple(Reason(**reason) for reason in record["reasons"]))


__all__ = [
    "GENERAL_FILES",
    "ROLE",
    "EvaluationConfig",
    "GatePolicy",
    "GeneralText",
    "Reason",
    "Scores",
    "SetConfig",
    "Verdict",
    "beside_base",
    "evaluation",
    "find_sets",
    "package_descriptions",
    "preload",
    "question_sets",
    "read_general",
    "read_set",
    "reasons",
    "scored_sets",
    "scores",
    "table",
    "verdict",
]
