"""Names and thresholds of the rules, and the removals that the ledger records."""

from __future__ import annotations

from stages.corpus.filtering.config import (
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    LengthConfig,
)
from stages.corpus.kernels import c4_lines, quality, repeated_lines, repeated_ngrams, web_lines
from stages.corpus.kernels.c4_lines import C4Settings
from stages.corpus.kernels.quality import QualityThresholds
from stages.corpus.kernels.repeated_lines import LineThresholds
from stages.corpus.kernels.web_lines import WebLineThresholds
from stages.corpus.policy import Removal

EMPTY = Removal("empty", 0.0, 1.0)
"""Nothing but white space."""

QUALITY = {
    quality.SHORT: ("quality_short", "minimum_words"),
    quality.LONG: ("quality_long", "maximum_words"),
    quality.SHORT_WORDS: ("quality_short_words", "minimum_mean_word_length"),
    quality.LONG_WORDS: ("quality_long_words", "maximum_mean_word_length"),
    quality.HASH_SIGNS: ("quality_hashes", "maximum_hash_sign_ratio"),
    quality.DOTS: ("quality_ellipses", "maximum_ellipsis_ratio"),
    quality.BULLETS: ("quality_bullets", "maximum_bullet_lines"),
    quality.LINE_DOTS: ("quality_line_ellipses", "maximum_ellipsis_lines"),
    quality.LETTERS: ("quality_letters", "minimum_alphabetic_words"),
    quality.STOP_WORDS: ("quality_stop_words", "minimum_stop_words"),
}
"""Rule and threshold by code."""
LINES = {
    repeated_lines.PARAGRAPHS: ("repetition_paragraphs", "of paragraphs", "duplicate_paragraphs"),
    repeated_lines.PARAGRAPH_CHARACTERS: ("repetition_paragraphs", "of characters", "duplicate_paragraph_characters"),
    repeated_lines.LINES: ("repetition_lines", "of lines", "duplicate_lines"),
    repeated_lines.LINE_CHARACTERS: ("repetition_lines", "of characters", "duplicate_line_characters"),
}
"""Rule, detail and threshold by code."""
C4 = {
    c4_lines.LOREM_IPSUM: "c4_lorem_ipsum",
    c4_lines.CURLY_BRACKET: "c4_curly_bracket",
    c4_lines.FEW_SENTENCES: "c4_too_few_sentences",
}
C4_EDITS = {
    c4_lines.LONG_WORD: "c4_lines_long_word",
    c4_lines.NO_END: "c4_lines_no_end",
    c4_lines.FEW_WORDS: "c4_lines_few_words",
    c4_lines.JAVASCRIPT: "c4_lines_javascript",
    c4_lines.POLICY: "c4_lines_policy",
    c4_lines.CITATION: "c4_citations",
    c4_lines.BLANK: "c4_blank_lines",
}
"""Names of the edits that C4 makes in texts that are kept. The first five together are `c4_lines`."""
FINEWEB = {
    web_lines.PUNCTUATED: ("fineweb_punctuated_lines", "minimum_punctuated_lines"),
    web_lines.SHORT_LINES: ("fineweb_short_lines", "maximum_short_lines"),
    web_lines.DUPLICATES: ("fineweb_duplicate_characters", "maximum_duplicate_characters"),
    web_lines.BREAKS: ("fineweb_line_breaks", "maximum_line_breaks"),
}
"""Rule and threshold by code."""


def length_removal(config: LengthConfig, characters: int) -> Removal | None:
    """The removal of a text with so many characters; None if it is kept."""
    if characters < config.minimum_characters:
        return Removal("length_short", characters, config.minimum_characters)
    if characters > config.maximum_characters:
        return Removal("length_long", characters, config.maximum_characters)
    return None


def quality_thresholds(config: GopherQualityConfig) -> QualityThresholds:
    """The thresholds for the kernel."""
    return QualityThresholds(
        minimum_words=float(config.minimum_words),
        maximum_words=float(config.maximum_words),
        minimum_mean_word_length=float(config.minimum_mean_word_length),
        maximum_mean_word_length=float(config.maximum_mean_word_length),
        maximum_hash_sign_ratio=float(config.maximum_symbol_ratio),
        maximum_ellipsis_ratio=float(config.maximum_symbol_ratio),
        maximum_bullet_lines=float(config.maximum_bullet_lines),
        maximum_ellipsis_lines=float(config.maximum_ellipsis_lines),
        minimum_alphabetic_words=float(config.minimum_alphabetic_words),
        minimum_stop_words=float(config.minimum_stop_words),
    )


def quality_removal(thresholds: QualityThresholds, code: int, value: float) -> Removal:
    """A removal by Gopher's quality rules."""
    rule, threshold = QUALITY[code]
    return Removal(rule, round(value, 4), getattr(thresholds, threshold))


def line_thresholds(config: GopherRepetitionConfig) -> LineThresholds:
    """The thresholds for the kernel."""
    return LineThresholds(
        duplicate_paragraphs=float(config.duplicate_paragraphs),
        duplicate_paragraph_characters=float(config.duplicate_paragraph_characters),
        duplicate_lines=float(config.duplicate_lines),
        duplicate_line_characters=float(config.duplicate_line_characters),
    )


def line_removal(thresholds: LineThresholds, code: int, value: float) -> Removal:
    """A removal for repeated lines or paragraphs."""
    rule, detail, threshold = LINES[code]
    return Removal(rule, round(value, 4), getattr(thresholds, threshold), detail)


def ngram_removal(config: GopherRepetitionConfig, code: int, value: float, words: int) -> Removal:
    """A removal for repeated n-grams."""
    if code == repeated_ngrams.TOP:
        return Removal("repetition_top_ngram", round(value, 4), config.top_ngrams[words], f"{words} words")
    return Removal("repetition_ngrams", round(value, 4), config.duplicate_ngrams[words], f"{words} words")


def c4_removal(config: C4Config, code: int, sentences: int) -> Removal:
    """A removal by C4's rules."""
    if code == c4_lines.FEW_SENTENCES:
        return Removal(C4[code], sentences, config.minimum_sentences)
    return Removal(C4[code], 1.0, 0.0)


def c4_settings(config: C4Config) -> C4Settings:
    """The settings for the kernel."""
    return C4Settings(
        terminal_punctuation=config.terminal_punctuation,
        minimum_words_per_line=config.minimum_words_per_line,
        maximum_word_length=config.maximum_word_length,
        javascript_lines=config.javascript_lines,
        policy_lines=config.policy_lines,
        citations=config.citations,
        lorem_ipsum=config.lorem_ipsum,
        curly_bracket=config.curly_bracket,
    )


def fineweb_thresholds(config: FineWebConfig) -> WebLineThresholds:
    """The thresholds for the kernel."""
    return WebLineThresholds(
        minimum_punctuated_lines=float(config.minimum_punctuated_lines),
        maximum_short_lines=float(config.maximum_short_lines),
        maximum_duplicate_characters=float(config.maximum_duplicate_characters),
        maximum_line_breaks=float(config.maximum_line_breaks),
    )


def fineweb_removal(thresholds: WebLineThresholds, code: int, value: float) -> Removal:
    """A removal by FineWeb's rules."""
    if code == web_lines.NO_LINES:
        return Removal("fineweb_empty", round(value, 4), 1.0)
    rule, threshold = FINEWEB[code]
    return Removal(rule, round(value, 4), getattr(thresholds, threshold))
