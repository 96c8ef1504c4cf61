"""Bits-per-byte on held-out documents: the compression that a model reaches, comparable across tokenizers.

For each document of tokens t[0..L-1] the model gives the negative log-likelihood of t[1..L-1]; the first token (which
has no context, as in training) and the EOS are excluded, and so are their bytes. A document longer than the window of S
tokens is read in windows without overlap: inputs t[iS .. iS+S-1], targets shifted by one, so every token except the
first is a target exactly once. The total is a ratio of sums, sum(nll) / ln 2 / sum(bytes): documents are weighted by
their bytes. As in nanochat's `loss_eval.py`; the measure is that of "The Pile" (arXiv 2101.00027).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from models import IGNORE_INDEX
from stages.evaluation.heldout import HeldoutDocument
from stages.evaluation.language_model import LanguageModel, in_parallel

_Window = tuple[int, int, int]
"""(targets, index of the document, index of the first token)."""


@dataclass(frozen=True)
class DocumentScore:
    """The cost of one document, over its counted tokens."""

    doc_id: str
    source: str
    nll: float
    """Negative log-likelihood in nats."""
    bytes: int
    """UTF-8 bytes of the tokens that were counted."""
    unigram_nll: float = 0.0
    """The unigram baseline's cost in nats."""
    unigram_bytes: int = 0
    """Its bytes: different from `bytes` only if the model has another tokenizer."""
    markov_nll: float | None = None
    """The Markov baseline's cost in nats, over `unigram_bytes`; None if it was not requested."""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def bits_per_byte(pairs: Iterable[tuple[float, float]]) -> float:
    """Ratio of sums of (nats, bytes); NaN without bytes."""
    nats, size = 0.0, 0.0
    for nll, count in pairs:
        nats += nll
        size += count
    return nats / math.log(2) / size if size else math.nan


def score_documents(
    documents: Sequence[np.ndarray], model: LanguageModel, window: int, progress: Callable[[int, int], None]
) -> np.ndarray:
    """Negative log-likelihood of each document (int64 tokens [L_i]) without its first token: float64 nats [n].

    Windows of all documents are sorted by length and padded on the right to the longest of their batch, which has no
    effect under a causal mask. Sums are in float64, log-probabilities in float32.
    """
    import torch
    from torch.nn import functional

    window = min(window, model.max_length)
    remaining = sorted(
        (
            (min(window, len(tokens) - 1 - start), number, start)
            for number, tokens in enumerate(documents)
            for start in range(0, len(tokens) - 1, window)
        ),
        reverse=True,
    )
    batches: list[list[_Window]] = []
    while remaining:
        size = model.batch_size(remaining[0][0])
        batches.append(remaining[:size])
        remaining = remaining[size:]

    def forward(batch: Sequence[_Window]) -> np.ndarray:
        longest = batch[0][0]
        inputs = torch.zeros(len(batch), longest, dtype=torch.long)
        targets = torch.full((len(batch), longest), IGNORE_INDEX, dtype=torch.long)
        for row, (length, number, start) in enumerate(batch):
            tokens = torch.from_numpy(documents[number][start : start + length + 1])
            inputs[row, :length], targets[row, :length] = tokens[:-1], tokens[1:]
        with torch.inference_mode():
            logits = model.model(inputs.to(model.device), use_cache=False).logits
            nll = functional.cross_entropy(
                logits.flatten(0, 1).float(),
                targets.to(model.device).flatten(),
                ignore_index=IGNORE_INDEX,
                reduction="none",
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


def evaluate_texts(
    texts: Sequence[tuple[str, str]],
    source: str,
    model: LanguageModel,
    window: int,
    progress: Callable[[int, int], None],
) -> list[DocumentScore]:
    """Scores of texts (name, text), without baselines."""
    encoded = encode_texts([text for _, text in texts], model.tokenizer)
    costs = score_documents([tokens for tokens, _ in encoded], model, window, progress)
    return [
        DocumentScore(name, source, float(cost), size)
        for (name, _), cost, (_, size) in zip(texts, costs, encoded, strict=True)
    ]


def evaluate_documents(
    documents: Sequence[HeldoutDocument],
    token_bytes: np.ndarray,
    unigram: np.ndarray,
    model: LanguageModel,
    window: int,
    own_tokens: Sequence[tuple[np.ndarray, int]] | None,
    progress: Callable[[int, int], None],
) -> list[DocumentScore]:
    """Scores of all documents, in the order given; a document of one token has no counted bytes and no cost.

    Args:
        token_bytes: int [vocabulary], UTF-8 bytes of each token of the tokens artifact.
        unigram: float64 [vocabulary], see `unigram_nll`.
        own_tokens: (tokens, counted bytes) of each document if the model has another tokenizer, else None.
    """
    counted = [int(token_bytes[doc.tokens[1:]].sum()) for doc in documents]
    own = own_tokens or [(doc.tokens, size) for doc, size in zip(documents, counted, strict=True)]
    nll = score_documents([tokens for tokens, _ in own], model, window, progress)
    return [
        DocumentScore(doc.doc_id, doc.source, float(cost), size, float(unigram[doc.tokens[1:]].sum()), base)
        for doc, cost, (_, size), base in zip(documents, nll, own, counted, strict=True)
    ]


def retokenize(documents: Sequence[HeldoutDocument], old: Any, new: Any) -> list[tuple[np.ndarray, int]]:
    """The documents encoded with another tokenizer: (int64 tokens, counted bytes), for a model with that tokenizer.

    The text is decoded from the tokens (byte-level BPE is lossless). Counted bytes are all except those of the new
    first token, so that each model's bits are divided by exactly the bytes that it predicted; if that token ends inside
    a character, the whole character is excluded.
    """
    return encode_texts([old.decode(doc.tokens.tolist(), clean_up_tokenization_spaces=False) for doc in documents], new)


def encode_texts(texts: Sequence[str], tokenizer: Any) -> list[tuple[np.ndarray, int]]:
    """Texts as (int64 tokens, counted bytes): all bytes except those of the first token, which nothing predicts."""
    # Special tokens in the text are encoded as text, as in the token stream.
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    out = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        end = offsets[0][1] if offsets else 0
        out.append((np.asarray(ids, dtype=np.int64), len(text[end:].encode())))
    return out
