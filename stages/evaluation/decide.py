"""The verdict stage: the gate on two evaluation artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stages.evaluation.gate import DocumentCost, GatePolicy, Scores, SetScores, gate
from stages.store import Artifact, ArtifactWriter, StoreError

PREDICTION = {"none": "prediction", "characters": "prediction_characters", "bytes": "prediction_bytes"}
"""Which field of a sample record a normalisation's prediction is in."""


def scores(artifact: Artifact) -> Scores:
    """What the gate looks at, read from an evaluation artifact.

    Raises:
        StoreError: it is an artifact of another kind.
    """
    if artifact.manifest.kind != "evaluation":
        raise StoreError(f"{artifact.id} is no evaluation; the gate compares evaluations")
    results = json.loads(artifact.read("results.json"))
    documents = {
        row["doc_id"]: DocumentCost(row["nll"], row["bytes"]) for row in _rows(artifact, "bits_per_byte.jsonl")
    }
    sets = {}
    for name, summary in results["sets"].items():
        key = PREDICTION[summary["normalise"]]
        rows = [row for row in _rows(artifact, f"samples/{name}.jsonl") if row["formulation"] == "cloze"]
        correct = {row["id"]: row[key] == row["gold"] for row in rows}
        sets[name] = SetScores(correct, summary["random"], summary["majority"])
    totals = results["bits_per_byte"].get("all", {})
    return Scores(documents, totals.get("unigram"), sets, totals.get("markov"))


def _rows(artifact: Artifact, path: str) -> list[dict[str, Any]]:
    # Not `splitlines` on text: Unicode's other line ends may stand inside a JSON text.
    return [json.loads(line) for line in artifact.read(path).split(b"\n") if line]


def build_verdict(config: GatePolicy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Fills the artifact: `verdict.json` with the decision, every rule's reason, and what was compared.

    Args:
        inputs: `candidate`, and `champion` where there is one: evaluation artifacts on the same sets and documents.

    Raises:
        InputError: they were not scored on the same items.
    """
    champion: Artifact | None = inputs.get("champion")
    candidate: Artifact = inputs["candidate"]
    verdict = gate(scores(champion) if champion else None, scores(candidate), config)
    record = verdict.record() | {
        "policy": config.model_dump(mode="json"),
        "candidate": candidate.digest,
        "champion": champion.digest if champion else None,
    }
    writer.put("verdict.json", json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False).encode())
    writer.metrics["accepted"] = float(verdict.accepted)
    writer.details["verdict"] = verdict.record()
    for reason in verdict.reasons:
        writer.events.emit("reason", **vars(reason))
    writer.events.emit("verdict", durable=True, accepted=verdict.accepted)
