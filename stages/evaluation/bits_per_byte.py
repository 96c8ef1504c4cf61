"""Bits-per-byte on held-out documents: what compression the model reaches, comparable across tokenizers.

For each document of tokens t[0..L-1] the model gives the negative log-likelihood of t[1..L-1]; the first token (it has
nothing before it, as in training) and the EOS are left out, and so are their bytes. A document longer than the window
of S tokens is read in windows that do not overlap: inputs t[iS .. iS+S-1], targets one further, so every token but
the first is a target exactly once. The total is a ratio of sums, sum(nll) / ln 2 / sum(bytes): documents weigh by
their bytes. As in nanochat's `loss_eval.py`; the measure is that of "The Pile" (arXiv 2101.00027).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stages.evaluation.heldout import HeldoutDocument
from stages.evaluation.language_model import LanguageModel, in_parallel

_Piece = tuple[int, int, int]
"""Targets, number of the document, first token."""


@dataclass(frozen=True)
class DocumentScore:
    """What one document costs, over its counted tokens."""

    doc_id: str
    source: str
    nll: float
    """Negative log-likelihood in nats."""
    bytes: int
    """UTF-8 bytes of the tokens that were counted."""
    unigram_nll: float = 0.0
    """The unigram baseline's cost in nats."""
    unigram_bytes: int = 0
    """Its bytes: other than `bytes` only where the model has a tokenizer of its own."""
    markov_nll: float | None = None
    """The Markov baseline's cost in nats, over `unigram_bytes`; None where it was not asked for."""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def bits_per_byte(pairs: Iterable[tuple[float, float]]) -> float:
    """Ratio of sums of (nats, bytes); NaN where there are no bytes."""
    nats, size = 0.0, 0.0
    for nll, count in pairs:
        nats += nll
        size += count
    return nats / math.log(2) / size if size else math.nan


def score_documents(
    documents: Sequence[np.ndarray], model: LanguageModel, window: int, progress: Callable[[int, int], None]
) -> np.ndarray:
    """Negative log-likelihood of each document (int64 tokens [L_i]) without its first token: float64 nats [n].

    Windows of all documents are sorted by length and padded to the longest of their batch; under a causal mask,
    padding on the right changes nothing before it. Sums are made in float64, log-probabilities in float32.
    """
    import torch
    from torch.nn import functional

    window = min(window, model.max_length)
    pieces = sorted(
        (
            (min(window, len(tokens) - 1 - start), number, start)
            for number, tokens in enumerate(documents)
            for start in range(0, len(tokens) - 1, window)
        ),
        reverse=True,
    )
    batches: list[list[_Piece]] = []
    while pieces:
        size = model.batch(pieces[0][0])
        batches.append(pieces[:size])
        pieces = pieces[size:]

    def forward(batch: Sequence[_Piece]) -> np.ndarray:
        longest = batch[0][0]
        inputs = torch.zeros(len(batch), longest, dtype=torch.long)
        targets = torch.full((len(batch), longest), -100, dtype=torch.long)
        for row, (length, number, start) in enumerate(batch):
            tokens = torch.from_numpy(documents[number][start : start + length + 1])
            inputs[row, :length], targets[row, :length] = tokens[:-1], tokens[1:]
        with torch.inference_mode():
            logits = model.model(inputs.to(model.device), use_cache=False).logits
            nll = functional.cross_entropy(
                logits.flatten(0, 1).float(), targets.to(model.device).flatten(), ignore_index=-100, reduction="none"
            )
            return nll.view(len(batch), longest).double().sum(dim=1).cpu().numpy()

    total = np.zeros(len(documents), dtype=np.float64)
    windows = sum(map(len, batches))
    done = 0
    for batch, sums in zip(batches, in_parallel(model, forward, batches), strict=True):
        np.add.at(total, [number for _, number, _ in batch], sums)
        done += len(batch)
        progress(done, windows)
    return total


def unigram_nll(counts: np.ndarray) -> np.ndarray:
    """Cost in nats of each token under a unigram model with add-one smoothing, float64 [vocabulary]."""
    smoothed = counts.astype(np.float64) + 1.0
    return -np.log(smoothed / smoothed.sum())


def evaluate_documents(
    documents: Sequence[HeldoutDocument],
    token_bytes: np.ndarray,
    unigram: np.ndarray,
    model: LanguageModel,
    window: int,
    own_tokens: Sequence[tuple[np.ndarray, int]] | None,
    progress: Callable[[int, int], None],
) -> list[DocumentScore]:
    """Scores of all documents, in the order given; one of a single token has no counted byte and costs nothing.

    Args:
        token_bytes: int [vocabulary], UTF-8 bytes of each token of the tokens artifact.
        unigram: float64 [vocabulary], see `unigram_nll`.
        own_tokens: (tokens, counted bytes) of each document where the model has a tokenizer of its own, else None.
    """
    counted = [int(token_bytes[doc.tokens[1:]].sum()) for doc in documents]
    own = own_tokens or [(doc.tokens, size) for doc, size in zip(documents, counted, strict=True)]
    nll = score_documents([tokens for tokens, _ in own], model, window, progress)
    return [
        DocumentScore(doc.doc_id, doc.source, float(cost), size, float(unigram[doc.tokens[1:]].sum()), base)
        for doc, cost, (_, size), base in zip(documents, nll, own, counted, strict=True)
    ]


def retokenize(documents: Sequence[HeldoutDocument], old: Any, new: Any) -> list[tuple[np.ndarray, int]]:
    """The documents in another tokenizer: (int64 tokens, counted bytes), for a model that was not trained on these.

    The text comes from decoding (byte-level BPE loses nothing). Counted bytes are all but those of the new first
    token, so that each model's bits stand over exactly the bytes that it predicted; where that token ends inside a
    character, the whole character is left out.
    """
    texts = [old.decode(doc.tokens.tolist(), clean_up_tokenization_spaces=False) for doc in documents]
    # Special tokens stand for nothing in a text that names them, as when the stream was made.
    encoded = new(texts, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    out = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        end = offsets[0][1] if offsets else 0
        out.append((np.asarray(ids, dtype=np.int64), len(text[end:].encode())))
    return out
