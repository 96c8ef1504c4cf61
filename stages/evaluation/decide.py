"""The verdict stage: applies the gate to two evaluation artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stages.evaluation.gate import DocumentCost, GatePolicy, Scores, SetScores, gate
from stages.store import Artifact, ArtifactWriter, StoreError

PREDICTION = {"none": "prediction", "characters": "prediction_characters", "bytes": "prediction_bytes"}
"""Field of a sample record with the prediction of each normalisation."""


def scores(artifact: Artifact) -> Scores:
    """The scores in an evaluation artifact, for the gate.

    Raises:
        StoreError: an artifact of another kind.
    """
    if artifact.manifest.kind != "evaluation":
        raise StoreError(f"{artifact.id} is not an evaluation; the gate compares evaluations")
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
    general = (
        {row["doc_id"]: DocumentCost(row["nll"], row["bytes"]) for row in _rows(artifact, "general.jsonl")}
        if artifact.files("general.jsonl")
        else {}
    )
    return Scores(documents, totals.get("unigram"), sets, totals.get("markov"), general)


def _rows(artifact: Artifact, path: str) -> list[dict[str, Any]]:
    # Not `splitlines` on text, which also splits at other Unicode line ends inside JSON strings.
    return [json.loads(line) for line in artifact.read(path).split(b"\n") if line]


def build_verdict(config: GatePolicy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Builds the artifact: `verdict.json` with the decision, every rule's reason, and the compared artifacts.

    Args:
        inputs: `candidate` and optionally `champion` and `base`: evaluation artifacts on the same sets and documents.

    Raises:
        InputError: they were not scored on the same items.
    """
    champion: Artifact | None = inputs.get("champion")
    candidate: Artifact = inputs["candidate"]
    base: Artifact | None = inputs.get("base")
    verdict = gate(
        scores(champion) if champion else None, scores(candidate), config, scores(base) if base is not None else None
    )
    record = verdict.record() | {
        "policy": config.model_dump(mode="json"),
        "candidate": candidate.digest,
        "champion": champion.digest if champion else None,
        **({"base": base.digest} if base is not None else {}),
    }
    writer.put("verdict.json", json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False).encode())
    writer.metrics["accepted"] = float(verdict.accepted)
    writer.details["verdict"] = verdict.record()
    for reason in verdict.reasons:
        writer.events.emit("reason", **vars(reason))
    writer.events.emit("verdict", durable=True, accepted=verdict.accepted)
