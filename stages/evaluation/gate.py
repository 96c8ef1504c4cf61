"""The release gate: a pure function from two models' scores and a policy to a verdict with its reasons.

Both models are compared on the same items, by a paired bootstrap: items (documents for bits-per-byte, questions for
accuracy) are drawn with replacement, both models' scores are computed from the same draw, and a one-sided bound of the
difference is a quantile over the draws (Koehn, "Statistical significance tests for machine translation evaluation",
2004). Items are sorted by id and the seed is fixed: the verdict depends on nothing else.

The burden of proof differs, because the two measures differ in precision:

- bits-per-byte (thousands of bytes per document, precise): the candidate must be *shown to be no worse* than the
  champion by more than the margin (upper bound <= margin, non-inferiority);
- accuracy (a few hundred answers, imprecise: two equal models differ by points): the candidate must not be *shown to be
  worse* by more than the margin (lower bound <= margin).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from stages.evaluation.bits_per_byte import bits_per_byte
from stages.store import Config, InputError

_MAX_DRAWN_ITEMS = 1 << 22


class GatePolicy(Config):
    """Requirements for the release of a candidate."""

    bits_per_byte_margin: float = Field(default=0.01, ge=0)
    """Allowed relative excess over the champion's bits-per-byte: 0.01 is one percent."""
    accuracy_margin: float = Field(default=0.02, ge=0, le=1)
    """Allowed drop below the champion's accuracy on a set: 0.02 is two percentage points."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided confidence of the bounds."""
    must_beat_baselines: tuple[str, ...] = ()
    """Sets whose cloze accuracy must exceed both baselines if there is no champion."""
    standard_errors: float = Field(default=2.0, ge=0)
    """Standard errors by which the accuracy must exceed the baselines."""
    must_beat_markov: bool = False
    """Whether the bits-per-byte must also be below the Markov baseline's, with or without a champion. Requires
    `evaluation.markov_order`."""
    general_margin: float | None = Field(default=None, ge=0)
    """For a model that goes on from a base: allowed relative excess over the base's bits-per-byte on general text (0.01
    is one percent). Empty: what it forgot is reported and holds nothing up."""
    bootstrap: int = Field(default=2000, ge=100)
    """Draws of the bootstrap."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class DocumentCost:
    """One document's cost: nats, and the counted bytes."""

    nll: float
    bytes: int


@dataclass(frozen=True)
class SetScores:
    """One set's answers in the cloze formulation."""

    correct: Mapping[str, bool]
    """By question id."""
    random: float
    majority: float

    @property
    def accuracy(self) -> float:
        return sum(self.correct.values()) / len(self.correct)

    @property
    def stderr(self) -> float:
        """Standard error of the mean; 0 for a single answer."""
        n = len(self.correct)
        return math.sqrt(self.accuracy * (1 - self.accuracy) / (n - 1)) if n > 1 else 0.0


@dataclass(frozen=True)
class Scores:
    """All scores of one model that the gate uses."""

    documents: Mapping[str, DocumentCost] = field(default_factory=dict)
    """By doc_id."""
    unigram_bits_per_byte: float | None = None
    sets: Mapping[str, SetScores] = field(default_factory=dict)
    markov_bits_per_byte: float | None = None
    """The Markov baseline's; None if it was not measured."""
    general: Mapping[str, DocumentCost] = field(default_factory=dict)
    """Of general text, by name."""

    @property
    def bits_per_byte(self) -> float:
        """Ratio of sums; NaN if nothing was measured."""
        return bits_per_byte((cost.nll, cost.bytes) for cost in self.documents.values())


@dataclass(frozen=True)
class Reason:
    """One rule and its result."""

    rule: str
    passed: bool
    value: float | None
    """The measured value; None if nothing could be measured."""
    threshold: float | None
    text: str
    """An explanation for the user."""


@dataclass(frozen=True)
class Verdict:
    """Accepted if every reason passed."""

    accepted: bool
    reasons: tuple[Reason, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"accepted": self.accepted, "reasons": [vars(reason) for reason in self.reasons]}


def gate(champion: Scores | None, candidate: Scores, policy: GatePolicy, base: Scores | None = None) -> Verdict:
    """Decides whether `candidate` may replace `champion`.

    Args:
        base: the scores of the model that the candidate went on from.

    Raises:
        InputError: the two were not scored on the same documents and questions, or the policy needs a set or the Markov
            baseline that was not scored.
    """
    reasons = _without_champion(candidate, policy) if champion is None else _paired(champion, candidate, policy)
    if policy.must_beat_markov and not math.isnan(candidate.bits_per_byte):
        reasons.append(_below_markov(candidate))
    if policy.general_margin is not None:
        reasons.append(_general(base, candidate, policy, policy.general_margin))
    return Verdict(all(reason.passed for reason in reasons), tuple(reasons))


def _without_champion(candidate: Scores, policy: GatePolicy) -> list[Reason]:
    value, limit = candidate.bits_per_byte, candidate.unigram_bits_per_byte
    reasons = [_not_measured() if math.isnan(value) or limit is None else _below("unigram", value, limit)]
    for name in policy.must_beat_baselines:
        if name not in candidate.sets:
            raise InputError(
                f"gate: must_beat_baselines contains {name!r}, which was not scored; scored sets: "
                f"{', '.join(candidate.sets) or 'none'}"
            )
        reasons.append(_above_baselines(name, candidate.sets[name], policy.standard_errors))
    return reasons


def _below_markov(candidate: Scores) -> Reason:
    limit = candidate.markov_bits_per_byte
    if limit is None:
        raise InputError(
            "gate: must_beat_markov is set, but the Markov baseline was not measured; set evaluation.markov_order"
        )
    return _below("Markov", candidate.bits_per_byte, limit)


def _below(baseline: str, value: float, limit: float) -> Reason:
    below = "below" if value < limit else "not below"
    text = f"bits-per-byte {value:.3f} is {below} the {baseline} baseline's {limit:.3f}"
    return Reason(f"bits_per_byte < {baseline}", value < limit, value, limit, text)


def _above_baselines(name: str, scores: SetScores, standard_errors: float) -> Reason:
    threshold = max(scores.random, scores.majority) + standard_errors * scores.stderr
    passed = scores.accuracy > threshold
    text = (
        f"{name}: accuracy {scores.accuracy:.3f} is {'' if passed else 'not '}above {threshold:.3f}, the better of "
        f"random {scores.random:.3f} and majority {scores.majority:.3f} plus {standard_errors:g} standard errors of "
        f"{scores.stderr:.3f} (n = {len(scores.correct)})"
    )
    return Reason(f"{name} > baselines", passed, scores.accuracy, threshold, text)


def _paired(champion: Scores, candidate: Scores, policy: GatePolicy) -> list[Reason]:
    _same_items("held-out documents", champion.documents, candidate.documents)
    counted = sorted(i for i, cost in candidate.documents.items() if cost.bytes and champion.documents[i].bytes)
    reasons = [_bits_per_byte(counted, champion, candidate, policy) if counted else _not_measured()]
    for name in sorted(candidate.sets):
        if name not in champion.sets:
            raise InputError(_rescore(f"the champion was not scored on set {name!r}"))
        _same_items(f"questions of set {name!r}", champion.sets[name].correct, candidate.sets[name].correct)
        reasons.append(_accuracy(name, champion.sets[name], candidate.sets[name], policy))
    return reasons


def _bits_per_byte(ids: Sequence[str], champion: Scores, candidate: Scores, policy: GatePolicy) -> Reason:
    """The candidate's bits-per-byte divided by the champion's, minus one, on the documents `ids`.

    Each model's nats are divided by the bytes that it predicted itself. These are the same bytes unless the two have
    different tokenizers: then they differ by each document's first token, which neither predicts, and the ratio per
    byte is still fair, while a total would favour the model with the longer first token.
    """
    value, bound = _excess(ids, candidate.documents, champion.documents, policy)
    margin = policy.bits_per_byte_margin
    passed = bound <= margin
    text = (
        f"bits-per-byte {candidate.bits_per_byte:.4f} against the champion's {champion.bits_per_byte:.4f}: "
        f"{value:+.2%}; with {policy.confidence:.0%} confidence at most {bound:+.2%}, allowed is {margin:+.2%} "
        f"({len(ids)} documents)"
    )
    return Reason("bits_per_byte no worse than champion", passed, bound, margin, text)


def _excess(
    ids: Sequence[str], ours: Mapping[str, DocumentCost], theirs: Mapping[str, DocumentCost], policy: GatePolicy
) -> tuple[float, float]:
    """How much larger our bits-per-byte are than theirs, relative, and the upper bound of it."""
    columns = np.array(
        [[cost for costs in (ours, theirs) for cost in (costs[i].nll, costs[i].bytes)] for i in ids], dtype=np.float64
    )
    value = _ratio(columns.sum(axis=0, keepdims=True))[0]
    return value, float(np.quantile(_ratio(_resample(columns, policy)), policy.confidence))


def _general(base: Scores | None, candidate: Scores, policy: GatePolicy, margin: float) -> Reason:
    """What was forgotten: the candidate's bits-per-byte on general text beside its base's."""
    rule = "general text not forgotten"
    if base is None or not base.general or not candidate.general:
        text = "general text was not measured on both the model and its base, and gate.general_margin asks for it"
        return Reason(rule, False, None, margin, text)
    _same_items("general texts", base.general, candidate.general)
    ids = sorted(i for i, cost in candidate.general.items() if cost.bytes)
    value, bound = _excess(ids, candidate.general, base.general, policy)
    text = (
        f"general text: {value:+.2%} bits-per-byte beside the base; with {policy.confidence:.0%} confidence at most "
        f"{bound:+.2%}, allowed is {margin:+.2%} ({len(ids)} documents)"
    )
    return Reason(rule, bound <= margin, bound, margin, text)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Relative excess of the candidate from sums [n, 4] of (nats, bytes, champion's nats, champion's bytes)."""
    return (sums[:, 0] / sums[:, 1]) / (sums[:, 2] / sums[:, 3]) - 1.0


def _accuracy(name: str, champion: SetScores, candidate: SetScores, policy: GatePolicy) -> Reason:
    ids = sorted(candidate.correct)
    drops = np.array([[float(champion.correct[i]) - float(candidate.correct[i])] for i in ids])
    bound = float(np.quantile(_resample(drops, policy)[:, 0] / len(ids), 1 - policy.confidence))
    passed = bound <= policy.accuracy_margin
    text = (
        f"{name}: accuracy {candidate.accuracy:.3f} against the champion's {champion.accuracy:.3f}; with "
        f"{policy.confidence:.0%} confidence the drop is at least {bound:+.3f}, allowed is "
        f"{policy.accuracy_margin:.3f} (n = {len(ids)})"
    )
    return Reason(f"{name} not shown worse than champion", passed, bound, policy.accuracy_margin, text)


def _resample(columns: np.ndarray, policy: GatePolicy) -> np.ndarray:
    """Sums of n rows drawn with replacement from `columns` [n, c], `bootstrap` times: [bootstrap, c]."""
    n = len(columns)
    generator = np.random.default_rng(policy.seed)
    at_once = max(1, _MAX_DRAWN_ITEMS // n)
    parts = []
    for first in range(0, policy.bootstrap, at_once):
        draws = generator.integers(0, n, size=(min(at_once, policy.bootstrap - first), n))
        parts.append(np.stack([column[draws].sum(axis=1) for column in columns.T], axis=1))
    return np.concatenate(parts)


def _same_items(what: str, champion: Mapping[str, Any], candidate: Mapping[str, Any]) -> None:
    if champion.keys() != candidate.keys():
        only: Sequence[str] = sorted(champion.keys() ^ candidate.keys())
        raise InputError(
            _rescore(f"the two were scored on different {what} ({len(only)} differ, among them {', '.join(only[:3])})")
        )


def _rescore(why: str) -> str:
    return f"gate: {why}; score the champion again on the candidate's sets"


def _not_measured() -> Reason:
    text = "bits-per-byte was not measured: the corpus has no held-out documents (raise its held-out fraction)"
    return Reason("bits_per_byte measured", False, None, None, text)
