"""datatrove's own filters and spaCy's own words: what the fast filters must agree with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.word_tokenizers import SpaCyTokenizer

from stages.corpus.filtering.config import FilterConfig
from stages.corpus.filtering.filters import Filters
from stages.corpus.texts import Texts

RULES = {
    "gopher_short_doc": ("quality_short", ""),
    "gopher_long_doc": ("quality_long", ""),
    "gopher_below_avg_threshold": ("quality_short_words", ""),
    "gopher_above_avg_threshold": ("quality_long_words", ""),
    "gopher_too_many_hashes": ("quality_hashes", ""),
    "gopher_too_many_ellipsis": ("quality_ellipses", ""),
    "gopher_too_many_bullets": ("quality_bullets", ""),
    "gopher_too_many_end_ellipsis": ("quality_line_ellipses", ""),
    "gopher_below_alpha_threshold": ("quality_letters", ""),
    "gopher_enough_stop_words": ("quality_stop_words", ""),
    "dup_para_frac": ("repetition_paragraphs", "of paragraphs"),
    "dup_para_char_frac": ("repetition_paragraphs", "of characters"),
    "dup_line_frac": ("repetition_lines", "of lines"),
    "dup_line_char_frac": ("repetition_lines", "of characters"),
    **{f"top_{n}_gram": ("repetition_top_ngram", f"{n} words") for n in range(1, 21)},
    **{f"duplicated_{n}_n_grams": ("repetition_ngrams", f"{n} words") for n in range(1, 21)},
    "lorem_ipsum": ("c4_lorem_ipsum", ""),
    "curly_bracket": ("c4_curly_bracket", ""),
    "too_few_sentences": ("c4_too_few_sentences", ""),
    "empty": ("fineweb_empty", ""),
    "line_punct_ratio": ("fineweb_punctuated_lines", ""),
    "short_line_ratio": ("fineweb_short_lines", ""),
    "char_dup_ratio": ("fineweb_duplicate_characters", ""),
    "list_ratio": ("fineweb_line_breaks", ""),
}
"""datatrove's reasons and ours, with the detail."""


@cache
def spacy_words() -> SpaCyTokenizer:
    """datatrove's English word splitter."""
    return SpaCyTokenizer("en")


class NoLanguage:
    """Every text is English."""

    def scores(self, texts: Texts) -> Any:
        return _Scores(len(texts))


@dataclass
class _Scores:
    n: int

    def probability(self, name: str) -> Any:
        return np.full(self.n, float(name == "en"))

    def best(self) -> tuple[list[str], Any]:
        return ["en"] * self.n, np.ones(self.n)


@dataclass(frozen=True)
class Verdict:
    """Rule and detail (empty: the text stays), and the text that is left."""

    rule: str
    detail: str
    text: str


def datatrove_filters(config: FilterConfig) -> list[BaseFilter]:
    """datatrove's filters with a config's thresholds, in our order."""
    found: list[BaseFilter] = []
    if config.quality:
        quality = config.quality
        found.append(
            GopherQualityFilter(
                quality.minimum_words, quality.maximum_words, quality.minimum_mean_word_length,
                quality.maximum_mean_word_length, quality.maximum_symbol_ratio, quality.maximum_bullet_lines,
                quality.maximum_ellipsis_lines, quality.minimum_alphabetic_words, quality.minimum_stop_words,
            )
        )  # fmt: skip
    if config.repetition:
        assert config.repetition.minimum_words == 0, "datatrove has no such rule"
        repetition = config.repetition
        found.append(
            GopherRepetitionFilter(
                repetition.duplicate_lines, repetition.duplicate_paragraphs, repetition.duplicate_line_characters,
                repetition.duplicate_paragraph_characters, tuple(sorted(repetition.top_ngrams.items())),
                tuple(sorted(repetition.duplicate_ngrams.items())),
            )
        )  # fmt: skip
    if config.c4:
        c4 = config.c4
        found.append(
            C4QualityFilter(
                remove_citations=c4.citations, filter_no_terminal_punct=c4.terminal_punctuation,
                min_num_sentences=c4.minimum_sentences, min_words_per_line=c4.minimum_words_per_line,
                max_word_length=c4.maximum_word_length, filter_lorem_ipsum=c4.lorem_ipsum,
                filter_javascript=c4.javascript_lines, filter_curly_bracket=c4.curly_bracket,
                filter_policy=c4.policy_lines,
            )
        )  # fmt: skip
    if config.fineweb:
        web = config.fineweb
        found.append(
            FineWebQualityFilter(
                line_punct_thr=web.minimum_punctuated_lines, short_line_thr=web.maximum_short_lines,
                short_line_length=web.short_line_characters, char_duplicates_ratio=web.maximum_duplicate_characters,
                new_line_ratio=web.maximum_line_breaks,
            )
        )  # fmt: skip
    return found


def expected(filters: list[BaseFilter], text: str) -> Verdict:
    """What datatrove makes of a text."""
    if not text.strip():
        return Verdict("empty", "", text)  # where datatrove divides by no words
    document = Document(text=text, id="")
    for one in filters:
        before = document.text
        answer = one.filter(document)
        if answer is not True:
            assert isinstance(answer, tuple)
            return Verdict(*RULES[answer[1]], before)
    return Verdict("", "", document.text)


def measured(filters: Filters, texts: list[str]) -> list[Verdict]:
    """What the fast filters make of texts, a batch."""
    judged = filters.judge(Texts.of(texts))
    found = []
    for i, text in enumerate(texts):
        removal = judged.removals.get(i)
        left = judged.texts[i]
        assert judged.rewritten[i] == (left != text)
        found.append(Verdict(removal.rule, removal.detail, left) if removal else Verdict("", "", left))
    return found
