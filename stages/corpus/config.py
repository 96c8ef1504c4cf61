"""What the corpus stage is asked to do: sources, policy, edits, filters, deduplication, decontamination, split."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field, field_validator

from stages.artifact import Config, how

PersonalKind = Literal["email", "phone", "ssn", "ip", "mrn"]


class FieldMapping(Config):
    """Names of a source's fields. Unset: guessed from the first records. Empty: the source has no such field."""

    text: str | None = None
    """Field with the document; `question+answer` joins fields, a blank line between them."""
    id: str | None = None
    """The record's own identifier; repeats are counted, never refused."""
    url: str | None = None
    """Where the document came from."""
    license: str | None = None
    """The document's licence, best as an SPDX identifier."""
    group: str | None = None
    """What belongs together and so is never split between training and held-out documents."""
    title: str | None = None
    """Title or subject."""
    retrieved_at: str | None = None
    """When the document was fetched."""


class SourceConfig(Config):
    """One place that documents come from."""

    location: str = how(description="File or folder, local or any fsspec URL.")
    format: Literal["auto", "jsonl", "parquet", "txt"] = "auto"
    """How its files are read; `auto` goes by each file's name."""
    license: str | None = None
    """Licence of the whole source; overrides what its records say."""
    fields: FieldMapping = FieldMapping()
    """Names of its fields."""
    priority: int = 0
    """Of near duplicates the one from the source with the smaller number stays; then by name of the source."""
    weight: float = how(1.0, gt=0, description="Share in the training mixture; not used by the corpus stage.")


class PolicyConfig(Config):
    """Which documents may be used at all."""

    allowed_licenses: list[str] | None = None
    """Licences (SPDX, or `unknown`) that may be used, case apart; unset: any."""
    denied_licenses: list[str] = Field(default_factory=list)
    """Licences that may not; stronger than `allowed_licenses`."""
    denied_sources: list[str] = Field(default_factory=list)
    """Names of sources that may not."""
    denied_urls: list[str] = Field(default_factory=list)
    """Patterns of URLs that may not, `*` for anything: `*://example.org/*`."""


class EditConfig(Config):
    """What is changed inside documents that stay."""

    personal_data: list[PersonalKind] = Field(default_factory=lambda: list(get_args(PersonalKind)))
    """Kinds that are replaced by placeholders such as `[EMAIL]`."""
    boilerplate_minimum_groups: int = Field(10, ge=2)
    """A line is boilerplate if it stands at the edge of documents of at least so many groups (subjects) ..."""
    boilerplate_minimum_fraction: float = Field(0.002, ge=0, le=1)
    """... and of at least this fraction of a source's documents."""
    boilerplate_maximum_share: float = Field(0.3, ge=0, le=1)
    """Where it makes up more of a document's characters, it is what the document says, and stays."""
    boilerplate_minimum_characters: int = Field(20, ge=1)
    """Shorter lines are never boilerplate."""
    boilerplate_edge_lines: int = Field(3, ge=0)
    """How many lines at the beginning and at the end of a document are looked at; 0 turns it off."""


class GopherQualityConfig(Config):
    """Quality rules of Gopher (Rae et al. 2021, appendix A), in datatrove's form, for short documents too.

    datatrove counts every punctuation mark as a word, which makes its 0.8 for words with a letter much stricter than
    the paper's; 0.6 over such words is the paper's 0.8 over words between spaces, about.
    """

    minimum_words: int = Field(20, ge=0)
    """Words (punctuation marks apart) that a document must have."""
    maximum_words: int = Field(100_000, ge=1)
    """Words that it may have."""
    minimum_mean_word_length: float = 3.0
    """Characters a word, on average, at least."""
    maximum_mean_word_length: float = 10.0
    """Characters a word, on average, at most."""
    maximum_symbol_ratio: float = 0.1
    """Hash signs, or ellipses, a word."""
    maximum_bullet_lines: float = 0.9
    """Fraction of lines that begin with a bullet."""
    maximum_ellipsis_lines: float = 0.3
    """Fraction of lines that end with an ellipsis."""
    minimum_alphabetic_words: float = 0.6
    """Fraction of words (punctuation marks among them) that have a letter."""
    minimum_stop_words: int = Field(1, ge=0)
    """How many of Gopher's eight English stop words must occur."""


class GopherRepetitionConfig(Config):
    """Repetition rules of Gopher (table A1), in datatrove's form.

    The n-gram limits are looser than the paper's: a question-and-answer page repeats its subject in every sentence,
    and the paper's limits take 9 % of such pages.
    """

    minimum_words: int = Field(50, ge=0)
    """Shorter documents are not judged: in few words the commonest n-gram is a large part even if it stands once."""
    duplicate_lines: float = 0.3
    """Fraction of lines that repeat an earlier one."""
    duplicate_paragraphs: float = 0.3
    """Fraction of paragraphs that repeat an earlier one."""
    duplicate_line_characters: float = 0.2
    """Fraction of characters in such lines."""
    duplicate_paragraph_characters: float = 0.2
    """Fraction of characters in such paragraphs."""
    top_ngrams: dict[int, float] = Field(default_factory=lambda: {2: 0.25, 3: 0.25, 4: 0.25})
    """Fraction of characters in the commonest n-gram."""
    duplicate_ngrams: dict[int, float] = Field(
        default_factory=lambda: {5: 0.35, 6: 0.34, 7: 0.33, 8: 0.32, 9: 0.31, 10: 0.30}
    )
    """Fraction of characters in n-grams that repeat an earlier one."""


class C4Config(Config):
    """Rules of C4 (Raffel et al. 2020) as verdicts on whole documents; datatrove's own class.

    Lines without a full stop count as well, unlike in C4: lists of symptoms and doses have none.
    """

    minimum_sentences: int = 1
    """Sentences that must be left when lines about cookies, scripts and terms of use are not counted."""
    minimum_words_per_line: int = 3
    """Lines with fewer words are not counted."""
    maximum_word_length: int = 1000
    """Lines with a longer word are not counted."""
    curly_bracket: bool = False
    """Remove documents with a `{`: code, and also some formulas."""


class FilterConfig(Config):
    """Which documents are good enough, in this order: language, quality, repetition, C4. Unset: not applied."""

    languages: list[str] = Field(default_factory=lambda: ["en"])
    """Languages (ISO 639-1) to keep; empty: all."""
    language_threshold: float = Field(0.3, ge=0, le=1)
    """Least score of the best allowed language. Names of diseases confuse: real English pages go down to 0.3."""
    quality: GopherQualityConfig | None = GopherQualityConfig()
    """Gopher's quality rules."""
    repetition: GopherRepetitionConfig | None = GopherRepetitionConfig()
    """Gopher's repetition rules."""
    c4: C4Config | None = C4Config()
    """C4's rules."""


class DedupConfig(Config):
    """Removal of copies."""

    exact: bool = True
    """Remove documents that are equal after Unicode NFC, white space aside."""
    near: bool = True
    """Remove documents that share most of their word n-grams with one that stays."""
    threshold: float = Field(0.7, gt=0, le=1)
    """Least Jaccard similarity of the sets of word n-grams, measured exactly against the document that stays."""
    ngram: int = Field(5, ge=1)
    """Words an n-gram."""
    permutations: int = Field(128, ge=16)
    """Length of the MinHash signature that finds candidates."""
    band_rows: int = Field(5, ge=1)
    """Rows a band: 25 bands of 5 find 99 of 100 pairs at similarity 0.7, 55 at 0.5."""
    protect_subjects: bool = True
    """Keep a near copy whose title (or group) is named in itself and not in the document that would stay: pages made
    from one template, each with a fact about another disease, are no copies of each other."""
    seed: int = 1
    """Seed of the permutations."""


class DecontaminationConfig(Config):
    """Removal of documents that contain evaluation questions."""

    sets: dict[str, str] = how({}, description="Name of a set and where it lies; what counts is its content.")
    ngram: int = Field(13, ge=1)
    """Words in a row that a document must share with a question, its options or its context."""
    minimum_words: int = Field(8, ge=1)
    """Questions between this and `ngram` words are matched as a whole; shorter ones are not looked for."""
    minimum_hits: int = Field(1, ge=1)
    """How many of one question's n-grams must occur."""


class CorpusConfig(Config):
    """Raw documents in; clean, deduplicated, split documents and a ledger of everything else out."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    """Where documents come from, by name."""
    policy: PolicyConfig = PolicyConfig()
    """Licences, sources and addresses that may be used."""
    edits: EditConfig = EditConfig()
    """Personal data and boilerplate."""
    filters: FilterConfig = FilterConfig()
    """Language and quality."""
    dedup: DedupConfig = DedupConfig()
    """Exact and near copies."""
    decontamination: DecontaminationConfig = DecontaminationConfig()
    """Evaluation sets to keep out."""
    heldout_fraction: float = Field(0.01, ge=0, lt=1)
    """Fraction of groups (not of documents) that is kept out of training."""
    seed: int = 0
    """Chooses which groups are held out."""
    maximum_bad_fraction: float = Field(0.01, ge=0, le=1)
    """Above this fraction of unreadable records in a source the stage stops; up to two are always put up with."""
    workers: int = how(2, ge=1, description="Processes that read and filter.")

    @field_validator("sources")
    @classmethod
    def _names_are_file_names(cls, value: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*", name):
                raise ValueError(
                    f"source name {name!r}: use letters, digits, dot, space, plus, dash or underscore, "
                    "beginning with a letter or digit"
                )
        return value
