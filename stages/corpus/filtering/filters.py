"""The filters of a recipe over batches of texts: which documents are kept, why others are removed, and what is edited.

Gopher's, C4's and FineWeb's rules give the verdicts of datatrove's filters, on spaCy's tokens, at a hundred times their
speed. `FastFilters` (in `step`) is a step of a datatrove pipeline that applies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.corpus.filtering import rules
from stages.corpus.filtering.config import (
    C4Config,
    FilterConfig,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
)
from stages.corpus.filtering.custom import CustomFilter, DatatroveFilter
from stages.corpus.filtering.words import Splitter, Words, read_only
from stages.corpus.kernels.c4_lines import FEW_SENTENCES, LONG_WORD, POLICY, c4_lines, sentences_of
from stages.corpus.kernels.character_classes import text_lengths
from stages.corpus.kernels.quality import quality
from stages.corpus.kernels.repeated_lines import repeated_lines
from stages.corpus.kernels.repeated_ngrams import repeated_ngrams, token_counts
from stages.corpus.kernels.rewriting import replace_texts
from stages.corpus.kernels.web_lines import web_lines
from stages.corpus.policy import Removal
from stages.corpus.texts import Texts


class Scores(Protocol):
    """Probabilities of languages for a batch of texts; implemented by `language.LanguageScores`."""

    def probability(self, name: str) -> NDArray[np.float64]:
        """Probability of one language, for each text."""

    def best(self) -> tuple[list[str], NDArray[np.float64]]:
        """The most likely language of each text, and its probability."""


class Identifier(Protocol):
    """Identifies languages; implemented by `language.Language`."""

    def scores(self, texts: Texts) -> Scores:
        """Scores of a batch."""


@dataclass
class Judged:
    """Result of the filters for a batch of n texts."""

    texts: Texts
    """As they are kept; a removed text is as it was when its rule was applied."""
    removals: dict[int, Removal]
    """By row, the first rule that the text breaks."""
    languages: list[str]
    """The most likely language of each text; "" for blank ones."""
    scores: NDArray[np.float64]
    """Its probability, float64[n]."""
    rewritten: NDArray[np.bool_]
    """Texts that were changed, bool[n]."""
    edits: Counter[str] = field(default_factory=Counter)
    """What C4 removed from kept texts: lines (`c4_lines`, and by rule `c4_lines_...`), `c4_citations`,
    `c4_blank_lines`."""


class Filters:
    """All filters of a config. Use one for each process: it caches words.

    Raises:
        InputError: when used, if a custom or datatrove filter cannot be imported, created or run.
        ConfigError: when used, if the config names a language that the model does not have.
    """

    def __init__(self, config: FilterConfig, language: Identifier | None = None) -> None:
        self.config = config
        self._language = language
        self._splitter: Splitter | None = None
        self._custom: list[CustomFilter | DatatroveFilter] | None = None

    def judge(self, texts: Texts) -> Judged:
        """Applies the filters in order: language, length, quality, repetition, C4, FineWeb, custom, datatrove's."""
        batch = _Batch(texts)
        for row in np.flatnonzero(batch.characters.blank).tolist():
            batch.remove(row, rules.EMPTY)
        self._judge_language(batch)
        if self.config.length:
            for row, characters in enumerate(batch.characters.counts.tolist()):
                removal = rules.length_removal(self.config.length, characters)
                if removal and batch.alive[row]:
                    batch.remove(row, removal)
        if self.config.quality or self.config.repetition or self.config.c4:
            splitter = self._word_splitter()
            words = splitter.split(texts.data, texts.offsets[:-1], texts.offsets[1:])
            if self.config.quality:
                _judge_quality(batch, self.config.quality, splitter, words)
            if self.config.repetition:
                _judge_repetition(batch, self.config.repetition, splitter, words)
            if self.config.c4:
                _judge_c4(batch, self.config.c4, splitter, words)
        if self.config.fineweb:
            _judge_fineweb(batch, self.config.fineweb, self._word_splitter())
        if self.config.custom or self.config.datatrove:
            self._judge_custom(batch)
        return Judged(batch.texts, batch.removals, batch.languages, batch.scores, batch.rewritten, batch.edits)

    def _word_splitter(self) -> Splitter:
        if self._splitter is None:
            self._splitter = Splitter()
        return self._splitter

    def _judge_language(self, batch: _Batch) -> None:
        if self._language is None:
            from stages.corpus.filtering.language import Language

            self._language = Language()
        found = self._language.scores(batch.texts)
        batch.languages, batch.scores = found.best()
        for row in np.flatnonzero(~batch.alive).tolist():
            batch.languages[row] = ""
            batch.scores[row] = 0
        if not self.config.languages:
            return
        best = np.max([found.probability(name) for name in self.config.languages], axis=0)
        threshold = self.config.language_threshold
        for row in np.flatnonzero(batch.alive & (best < threshold)).tolist():
            batch.remove(row, Removal("language", round(float(best[row]), 4), threshold, batch.languages[row]))

    def _judge_custom(self, batch: _Batch) -> None:
        if self._custom is None:
            self._custom = [CustomFilter(config) for config in self.config.custom]
            self._custom += [DatatroveFilter(config) for config in self.config.datatrove]
        changed: dict[int, bytes] = {}
        for row in np.flatnonzero(batch.alive).tolist():
            before = text = batch.texts[row]
            for custom in self._custom:
                judgement = custom.judge(text)
                if judgement.removal:
                    batch.remove(row, judgement.removal)
                    text = before
                    break
                text = judgement.text
            if text != before:
                changed[row] = text.encode()
                batch.rewritten[row] = True
        batch.texts = batch.texts.replace(changed)


@dataclass(frozen=True)
class _Lengths:
    counts: NDArray[np.int64]
    blank: NDArray[np.bool_]


class _Batch:
    """State of a batch between filters."""

    def __init__(self, texts: Texts) -> None:
        n = len(texts)
        self.texts = texts = Texts(read_only(texts.data), texts.offsets)
        self.removals: dict[int, Removal] = {}
        self.alive = np.ones(n, np.bool_)
        self.languages: list[str] = [""] * n
        self.scores = np.zeros(n, np.float64)
        self.rewritten = np.zeros(n, np.bool_)
        self.edits: Counter[str] = Counter()
        self.characters = _Lengths(*text_lengths(texts.data, texts.offsets))

    def remove(self, row: int, removal: Removal) -> None:
        self.removals[row] = removal
        self.alive[row] = False

    def remove_coded(self, codes: NDArray[np.int32], removal: Callable[[int, int], Removal]) -> None:
        """Removes the texts whose code is not 0; `removal` returns the evidence for a code and row."""
        for row in np.flatnonzero(codes).tolist():
            self.remove(row, removal(int(codes[row]), row))


def _verdicts(n: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    return np.zeros(n, np.int32), np.zeros(n, np.float64)


def _judge_quality(batch: _Batch, config: GopherQualityConfig, splitter: Splitter, words: Words) -> None:
    codes, values = _verdicts(len(batch.texts))
    thresholds = rules.quality_thresholds(config)
    quality(words.firsts, words.ids, words.gaps, splitter.facts, thresholds, batch.alive, codes, values)
    batch.remove_coded(codes, lambda code, row: rules.quality_removal(thresholds, code, float(values[row])))


def _judge_repetition(batch: _Batch, config: GopherRepetitionConfig, splitter: Splitter, words: Words) -> None:
    texts, characters = batch.texts, batch.characters.counts
    codes, values = _verdicts(len(texts))
    tokens = token_counts(words.firsts, words.ids, splitter.facts)
    long_enough = batch.alive & (tokens >= config.minimum_words)
    thresholds = rules.line_thresholds(config)
    repeated_lines(texts.data, texts.offsets, characters, thresholds, long_enough, codes, values)
    batch.remove_coded(codes, lambda code, row: rules.line_removal(thresholds, code, float(values[row])))

    long_enough &= batch.alive
    codes, values = _verdicts(len(texts))
    broken = np.zeros(len(texts), np.int32)
    repeated_ngrams(
        words.firsts, words.ids, splitter.facts, splitter.tokens, tokens, characters,
        *_limits_by_size(config.top_ngrams), *_limits_by_size(config.duplicate_ngrams), long_enough,
        codes, values, broken,
    )  # fmt: skip
    batch.remove_coded(codes, lambda code, row: rules.ngram_removal(config, code, float(values[row]), int(broken[row])))


def _limits_by_size(limits: dict[int, float]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    sizes = sorted(limits)
    return np.array(sizes, np.int64), np.array([limits[n] for n in sizes], np.float64)


def _judge_c4(batch: _Batch, config: C4Config, splitter: Splitter, words: Words) -> None:
    texts, n = batch.texts, len(batch.texts)
    settings = rules.c4_settings(config)
    codes = np.zeros(n, np.int32)
    sentences, counts, places = np.zeros(n, np.int64), np.zeros((n, 7), np.int64), np.zeros((n, 2), np.int64)
    out = np.empty(len(texts.data), np.uint8)
    most = int(np.count_nonzero(texts.data == ord("["))) + 1
    owners, begins, ends = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    rewritten = c4_lines(
        texts.data, words.firsts, words.ids, words.starts, words.gaps, splitter.facts, splitter.classes,
        settings, batch.alive, codes, sentences, counts, out, read_only(out), places, owners, begins, ends,
    )  # fmt: skip
    if rewritten and config.minimum_sentences > 0:
        lines = splitter.split(out, begins[:rewritten], ends[:rewritten])
        more = np.zeros(rewritten, np.int64)
        sentences_of(lines.firsts, lines.ids, lines.gaps, splitter.facts, more)
        np.add.at(sentences, owners[:rewritten], more)
    if config.minimum_sentences > 0:
        codes[batch.alive & (codes == 0) & (sentences < config.minimum_sentences)] = FEW_SENTENCES
    batch.remove_coded(codes, lambda code, row: rules.c4_removal(config, code, int(sentences[row])))

    data, offsets, changed = replace_texts(texts.data, texts.offsets, read_only(out), places, batch.alive)
    if changed.any():
        batch.texts = Texts(read_only(data), offsets)
        batch.rewritten |= changed
        batch.characters = _Lengths(*text_lengths(batch.texts.data, offsets))
    totals = counts[batch.alive].sum(axis=0)
    batch.edits["c4_lines"] += int(totals[LONG_WORD : POLICY + 1].sum())
    for kind, name in rules.C4_EDITS.items():
        batch.edits[name] += int(totals[kind])
    batch.edits = +batch.edits  # without zeros


def _judge_fineweb(batch: _Batch, config: FineWebConfig, splitter: Splitter) -> None:
    texts = batch.texts
    words = splitter.split(texts.data, texts.offsets[:-1], texts.offsets[1:])
    codes, values = _verdicts(len(texts))
    thresholds = rules.fineweb_thresholds(config)
    web_lines(
        texts.data, texts.offsets, words.firsts, words.ids, splitter.facts, splitter.classes,
        config.short_line_characters, thresholds, batch.alive, codes, values,
    )  # fmt: skip
    batch.remove_coded(codes, lambda code, row: rules.fineweb_removal(thresholds, code, float(values[row])))
