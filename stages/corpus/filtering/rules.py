"""The names of the rules, and what the ledger shows of a removal by one."""

from __future__ import annotations

from stages.corpus.filtering.config import (
    C4Config,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    LengthConfig,
)
from stages.corpus.kernels import c4_lines, quality, repeated_lines, repeated_ngrams, web_lines
from stages.corpus.policy import Removal

EMPTY = Removal("empty", 0.0, 1.0)
"""No character but white space."""

QUALITY = {
    quality.SHORT: "quality_short",
    quality.LONG: "quality_long",
    quality.SHORT_WORDS: "quality_short_words",
    quality.LONG_WORDS: "quality_long_words",
    quality.HASH_SIGNS: "quality_hashes",
    quality.DOTS: "quality_ellipses",
    quality.BULLETS: "quality_bullets",
    quality.LINE_DOTS: "quality_line_ellipses",
    quality.LETTERS: "quality_letters",
    quality.STOP_WORDS: "quality_stop_words",
}
LINES = {
    repeated_lines.PARAGRAPHS: ("repetition_paragraphs", "of paragraphs"),
    repeated_lines.PARAGRAPH_CHARACTERS: ("repetition_paragraphs", "of characters"),
    repeated_lines.LINES: ("repetition_lines", "of lines"),
    repeated_lines.LINE_CHARACTERS: ("repetition_lines", "of characters"),
}
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
"""Names of what C4 takes from texts that stay. The first five together are `c4_lines`."""
FINEWEB = {
    web_lines.NO_LINES: "fineweb_empty",
    web_lines.PUNCTUATED: "fineweb_punctuated_lines",
    web_lines.SHORT_LINES: "fineweb_short_lines",
    web_lines.DUPLICATES: "fineweb_duplicate_characters",
    web_lines.BREAKS: "fineweb_line_breaks",
}


def length_removal(config: LengthConfig, characters: int) -> Removal | None:
    """Why a text of so many characters goes, if it does."""
    if characters < config.minimum_characters:
        return Removal("length_short", characters, config.minimum_characters)
    if characters > config.maximum_characters:
        return Removal("length_long", characters, config.maximum_characters)
    return None


def quality_limits(config: GopherQualityConfig) -> list[float]:
    """Limits in the order of the codes."""
    return [
        config.minimum_words, config.maximum_words, config.minimum_mean_word_length, config.maximum_mean_word_length,
        config.maximum_symbol_ratio, config.maximum_symbol_ratio, config.maximum_bullet_lines,
        config.maximum_ellipsis_lines, config.minimum_alphabetic_words, config.minimum_stop_words,
    ]  # fmt: skip


def quality_removal(config: GopherQualityConfig, code: int, value: float) -> Removal:
    """A removal by Gopher's quality rules."""
    return Removal(QUALITY[code], round(value, 4), float(quality_limits(config)[code - 1]))


def line_limits(config: GopherRepetitionConfig) -> list[float]:
    """Limits in the order of the codes."""
    return [
        config.duplicate_paragraphs, config.duplicate_paragraph_characters, config.duplicate_lines,
        config.duplicate_line_characters,
    ]  # fmt: skip


def line_removal(config: GopherRepetitionConfig, code: int, value: float) -> Removal:
    """A removal for repeated lines or paragraphs."""
    rule, detail = LINES[code]
    return Removal(rule, round(value, 4), line_limits(config)[code - 1], detail)


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


def fineweb_limits(config: FineWebConfig) -> list[float]:
    """Limits in the order of the codes, but for the first, which has none."""
    return [
        config.minimum_punctuated_lines, config.maximum_short_lines, config.maximum_duplicate_characters,
        config.maximum_line_breaks,
    ]  # fmt: skip


def fineweb_removal(config: FineWebConfig, code: int, value: float) -> Removal:
    """A removal by FineWeb's rules."""
    threshold = 1.0 if code == web_lines.NO_LINES else fineweb_limits(config)[code - web_lines.PUNCTUATED]
    return Removal(FINEWEB[code], round(value, 4), threshold)
