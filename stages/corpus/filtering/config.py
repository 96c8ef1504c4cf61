"""The filters of a recipe: their rules and thresholds."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from stages.store import Config


class LengthConfig(Config):
    """Limits on a document's length."""

    minimum_characters: int = Field(0, ge=0)
    """Least characters of a document."""
    maximum_characters: int = Field(20_000_000, ge=1)
    """Most characters of a document."""


class GopherQualityConfig(Config):
    """Quality rules of Gopher (Rae et al. 2021, appendix A) as datatrove implements them, loosened for short documents.

    datatrove counts every punctuation mark as a word, which makes its 0.8 for words with a letter much stricter than
    the paper's; 0.6 over such words is about the paper's 0.8 over words between spaces.
    """

    minimum_words: int = Field(20, ge=0)
    """Least words (without punctuation marks) of a document."""
    maximum_words: int = Field(100_000, ge=1)
    """Most words of a document."""
    minimum_mean_word_length: float = 3.0
    """Least mean word length in characters."""
    maximum_mean_word_length: float = 10.0
    """Largest mean word length in characters."""
    maximum_symbol_ratio: float = 0.1
    """Hash signs, or ellipses, per word."""
    maximum_bullet_lines: float = 0.9
    """Fraction of lines that begin with a bullet."""
    maximum_ellipsis_lines: float = 0.3
    """Fraction of lines that end with an ellipsis."""
    minimum_alphabetic_words: float = 0.6
    """Fraction of words (punctuation marks included) that have a letter."""
    minimum_stop_words: int = Field(1, ge=0)
    """How many of Gopher's eight English stop words must occur."""


class GopherRepetitionConfig(Config):
    """Repetition rules of Gopher (table A1) as datatrove implements them.

    The n-gram limits are looser than the paper's: a question-and-answer page repeats its subject in every sentence,
    and the paper's limits remove 9 % of such pages.
    """

    minimum_words: int = Field(50, ge=0)
    """Shorter documents are exempt: in few words the most common n-gram is a large part even if it occurs once."""
    duplicate_lines: float = 0.3
    """Fraction of lines that repeat an earlier one."""
    duplicate_paragraphs: float = 0.3
    """Fraction of paragraphs that repeat an earlier one."""
    duplicate_line_characters: float = 0.2
    """Fraction of characters in such lines."""
    duplicate_paragraph_characters: float = 0.2
    """Fraction of characters in such paragraphs."""
    top_ngrams: dict[int, float] = Field(default_factory=lambda: {2: 0.25, 3: 0.25, 4: 0.25})
    """Fraction of characters in the most common n-gram, by n."""
    duplicate_ngrams: dict[int, float] = Field(
        default_factory=lambda: {5: 0.35, 6: 0.34, 7: 0.33, 8: 0.32, 9: 0.31, 10: 0.30}
    )
    """Fraction of characters in n-grams that repeat an earlier one, by n."""

    @field_validator("top_ngrams", "duplicate_ngrams")
    @classmethod
    def _lengths_are_countable(cls, value: dict[int, float]) -> dict[int, float]:
        for n in value:
            if not 1 <= n <= 20:
                raise ValueError(f"n-grams of {n} words are not supported; use 1 to 20")
        return value


class C4Config(Config):
    """Rules of C4 (Raffel et al. 2020) as datatrove implements them: lines are removed, then the rest is checked.

    Two of C4's line rules are off by default, unlike in C4: lists of symptoms and doses are short lines without a full
    stop.
    """

    terminal_punctuation: bool = False
    """Remove lines that do not end with a full stop, question or exclamation mark or quotation mark."""
    minimum_words_per_line: int = 1
    """Remove lines with fewer words (between spaces); C4 has 3."""
    maximum_word_length: int = 1000
    """Remove lines with a longer word."""
    javascript_lines: bool = True
    """Remove lines that mention JavaScript."""
    policy_lines: bool = True
    """Remove lines that mention cookies, terms of use or a privacy policy."""
    citations: bool = True
    """Remove marks such as `[12]` and `[citation needed]` from lines."""
    minimum_sentences: int = 1
    """Least sentences that must remain; C4 has 5."""
    lorem_ipsum: bool = True
    """Remove documents with the placeholder text "lorem ipsum"."""
    curly_bracket: bool = False
    """Remove documents with a `{`: code, and also some formulas."""


class FineWebConfig(Config):
    """FineWeb's own quality rules (Penedo et al. 2024) as datatrove implements them; for web pages."""

    minimum_punctuated_lines: float = 0.12
    """Fraction of lines that must end with a mark of punctuation."""
    short_line_characters: int = Field(30, ge=0)
    """Lines up to so many characters are short."""
    maximum_short_lines: float = 0.67
    """Fraction of lines that may be short."""
    maximum_duplicate_characters: float = 0.01
    """Fraction of characters that may be in lines that repeat an earlier one."""
    maximum_line_breaks: float = 0.3
    """Most line breaks per word."""


class CustomFilterConfig(Config):
    """A custom filter, named by a Python import path.

    Either a function `f(text) -> bool | tuple[bool, str]`, or a class, which is created with `options` and then called
    with each text. True keeps the document; the string is the reason that the ledger records.
    """

    path: str
    """`package.module:name`, importable where the stage runs."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class, or of every call of the function."""
    version: str = "1"
    """Part of the corpus's fingerprint: change it when the filter's decisions change."""

    @field_validator("path")
    @classmethod
    def _is_an_import_path(cls, value: str) -> str:
        module, colon, name = value.partition(":")
        if not (colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
            raise ValueError(f"{value!r} is not an import path; write package.module:name")
        return value


class DatatroveFilterConfig(Config):
    """Any of datatrove's filters, unchanged (a document at a time, at datatrove's speed)."""

    name: str
    """Class in `datatrove.pipeline.filters`, such as `RegexFilter`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the class."""


class FilterConfig(Config):
    """Quality filters, applied in this order: language, length, quality, repetition, C4, FineWeb, custom, datatrove's.
    Unset ones are not applied."""

    languages: list[str] = Field(default_factory=lambda: ["en"])
    """Languages (ISO 639-1) to keep; empty: all."""
    language_threshold: float = Field(0.3, ge=0, le=1)
    """Least score of the best allowed language. Names of diseases lower it: real English pages score down to 0.3."""
    length: LengthConfig | None = None
    """Limits on characters."""
    quality: GopherQualityConfig | None = GopherQualityConfig()
    """Gopher's quality rules."""
    repetition: GopherRepetitionConfig | None = GopherRepetitionConfig()
    """Gopher's repetition rules."""
    c4: C4Config | None = C4Config()
    """C4's rules."""
    fineweb: FineWebConfig | None = None
    """FineWeb's rules."""
    custom: list[CustomFilterConfig] = Field(default_factory=list)
    """Custom filters, by import path."""
    datatrove: list[DatatroveFilterConfig] = Field(default_factory=list)
    """datatrove's filters, by name."""
