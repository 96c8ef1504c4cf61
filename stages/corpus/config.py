"""The config of the corpus stage: sources, policy, edits, filters, deduplication, decontamination, held-out split."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

from pydantic import Field, field_validator, model_validator

from stages.corpus.filtering.config import FilterConfig
from stages.corpus.phones import PhoneCountry
from stages.store import Config, runtime_field

PersonalKind = Literal["email", "phone", "ssn", "ip", "mrn", "iban", "card"]
PersonalAction = Literal["mask", "drop", "tag"]
MAXIMUM_RECORD_BYTES = 64 << 20


class FieldMapping(Config):
    """Names of a source's fields; `data.text` is the field `text` inside `data`, unless a field is itself called so.
    Unset: guessed from records all over the source. Empty: the source has no such field."""

    text: str | None = None
    """Field with the document; `question+answer` joins two fields with a blank line."""
    id: str | None = None
    """The record's own identifier; repeats are counted, never refused."""
    url: str | None = None
    """Where the document came from."""
    license: str | None = None
    """The document's licence, preferably an SPDX identifier."""
    group: str | None = None
    """Group of the document; a group is never split between training and held-out documents."""
    title: str | None = None
    """Title or subject."""
    retrieved_at: str | None = None
    """When the document was fetched."""


class SourceConfig(Config):
    """One place that documents come from."""

    location: str = runtime_field(description="File or folder, local or any fsspec URL.")
    files: list[str] | None = runtime_field(
        None,
        description="Which files belong to it, ignoring case: `*.jsonl` anywhere, `/*.jsonl` directly in the folder, "
        "`2024/*.jsonl` in that subfolder. Unset: all.",
    )
    format: Literal["auto", "jsonl", "parquet", "txt", "fasta", "fasta_upper"] = "auto"
    """How its files are read; `auto` chooses by each file's name. In `fasta` each sequence is a document; `fasta_upper`
    converts lower-case letters, which mark masked repeats, to upper case."""
    letters_per_document: int | None = Field(None, ge=1)
    """Cut the sequences of FASTA files, such as chromosomes, into documents of so many letters, each with its range in
    the uri (`genome.fa#3:1-1000000`). They form one group, so that a sequence is held out as a whole or not at all.
    Unset: a sequence is one document, of any length up to `maximum_record_bytes`."""
    license: str | None = None
    """Licence of the whole source; overrides what its records say."""
    fields: FieldMapping = FieldMapping()
    """Names of its fields."""
    priority: int = 0
    """Of near duplicates the one from the source with the smaller number is kept; ties are broken by name."""

    @model_validator(mode="after")
    def _only_sequences_are_cut(self) -> SourceConfig:
        if self.letters_per_document is not None and self.format not in ("auto", "fasta", "fasta_upper"):
            raise ValueError(f"letters_per_document is only for FASTA; the format is {self.format}")
        return self


class PolicyConfig(Config):
    """Which documents may be used."""

    allowed_licenses: list[str] | None = None
    """Licences (SPDX, or `unknown`) that may be used, ignoring case; unset: any."""
    denied_licenses: list[str] = Field(default_factory=list)
    """Licences that may not be used; overrides `allowed_licenses`."""
    denied_sources: list[str] = Field(default_factory=list)
    """Names of sources that may not be used."""
    denied_urls: list[str] = Field(default_factory=list)
    """Patterns of URLs that may not be used, with `*` as wildcard: `*://example.org/*`."""


class EditConfig(Config):
    """Edits inside kept documents."""

    personal_data: dict[PersonalKind, PersonalAction] = Field(
        default_factory=lambda: cast(dict[PersonalKind, PersonalAction], dict.fromkeys(get_args(PersonalKind), "mask"))
    )
    """Action for each kind: `mask` replaces it by a placeholder such as `[EMAIL]`, `drop` removes the document, `tag`
    keeps the text and adds the kind to the document's steps. Kinds that are not named are not searched. Hits are
    counted, never stored."""
    phone_countries: list[PhoneCountry] = ["US"]
    """Countries whose national telephone numbers are found too (ISO 3166 codes; US is all of North America's numbering
    plan); international numbers are found always. Amounts may look like the forms without a leading 0 (ES, PL, PT)."""
    boilerplate_minimum_groups: int = Field(10, ge=2)
    """A line is boilerplate if it occurs at the edge of documents of at least so many groups (subjects) ..."""
    boilerplate_minimum_fraction: float = Field(0.002, ge=0, le=1)
    """... and of at least this fraction of a source's documents."""
    boilerplate_maximum_share: float = Field(0.3, ge=0, le=1)
    """Where it makes up more of a document's characters, it is content and is kept."""
    boilerplate_minimum_characters: int = Field(20, ge=1)
    """Shorter lines are never boilerplate."""
    boilerplate_edge_lines: int = Field(3, ge=0)
    """How many lines at the beginning and at the end of a document are checked; 0 turns this off."""
    boilerplate_paragraph_characters: int = Field(200, ge=0)
    """Paragraphs (between blank lines) of at least so many characters are boilerplate by the same two limits anywhere
    in a document; the documents of one group keep them. Shorter ones are often items of a list. 0 turns this off."""


MINIMUM_CANDIDATE_RECALL = 0.98
"""Probability with which a pair at the threshold must become a candidate."""


class DedupConfig(Config):
    """Removal of copies."""

    exact: bool = True
    """Remove documents that are equal after Unicode NFC, ignoring white space."""
    near: bool = True
    """Remove documents that share most of their word n-grams with a kept one."""
    similarity_threshold: float = Field(0.7, gt=0, le=1)
    """Least Jaccard similarity of the sets of word n-grams, measured exactly against the kept document."""
    ngram_size: int = Field(5, ge=1)
    """Words in an n-gram."""
    bands: int = Field(25, ge=1, le=256)
    """Bands of the MinHash signature that finds candidates; documents with an equal band are compared."""
    band_rows: int = Field(5, ge=1, le=32)
    """Hashes in a band: 25 bands of 5 find 99 of 100 pairs at similarity 0.7, 55 at 0.5."""
    protect_subjects: bool = True
    """Keep a near copy whose title (or group) occurs in its own text and not in the document that would be kept: pages
    from one template, each with a fact about another disease, are not copies of each other."""
    seed: int = 1
    """Seed of the hashes."""

    @model_validator(mode="after")
    def _bands_find_what_is_asked_for(self) -> DedupConfig:
        found = 1 - (1 - self.similarity_threshold**self.band_rows) ** self.bands
        if self.near and found < MINIMUM_CANDIDATE_RECALL:
            raise ValueError(
                f"{self.bands} bands of {self.band_rows} find only {found:.0%} of pairs at the threshold "
                f"{self.similarity_threshold:g}; use more bands or fewer band_rows to find "
                f"{MINIMUM_CANDIDATE_RECALL:.0%}"
            )
        return self


class DecontaminationConfig(Config):
    """Which evaluation questions are kept out, and how a match is decided."""

    sets: dict[str, str] = runtime_field({}, description="Path or URL of each set by name; only the content is hashed.")
    ngram_size: int = Field(13, ge=1)
    """Consecutive words that a document must share with a question and its answer, or with a context. For a question
    with fewer words, including the answer, all of them."""
    minimum_words: int = Field(8, ge=1)
    """A question with fewer words, including the answer, must occur in a document as a whole; shorter contexts are
    ignored."""
    minimum_hits: int = Field(1, ge=1)
    """Least number of one question's n-grams that must occur."""


class CorpusConfig(Config):
    """From raw documents to clean, deduplicated, split documents, and a ledger of everything removed."""

    sources: dict[str, SourceConfig] = Field(min_length=1)
    """Sources of documents, by name."""
    policy: PolicyConfig = PolicyConfig()
    """Licences, sources and URLs that may be used."""
    edits: EditConfig = EditConfig()
    """Personal data and boilerplate."""
    filters: FilterConfig = FilterConfig()
    """Language and quality."""
    dedup: DedupConfig = DedupConfig()
    """Removal of exact and near copies."""
    decontamination: DecontaminationConfig = DecontaminationConfig()
    """Evaluation sets whose questions are kept out of training."""
    heldout_fraction: float = Field(0.01, ge=0, lt=1)
    """Fraction of groups (not of documents) that is held out from training."""
    seed: int = 0
    """Seed that chooses which groups are held out."""
    maximum_unreadable_fraction: float = Field(0.01, ge=0, le=1)
    """Above this fraction of unreadable records in a source the stage fails; up to two are always tolerated."""
    maximum_record_bytes: int = Field(MAXIMUM_RECORD_BYTES, ge=1 << 10, le=512 << 20)
    """Longer records are quarantined unread."""
    workers: int = runtime_field(2, ge=1, description="Processes that read and filter; with `ray`, tasks at a time.")
    executor: Literal["local", "ray"] = runtime_field(
        "local", description="Processes of this machine, or a Ray cluster."
    )
    ray_address: str = runtime_field("auto", description="The Ray cluster's address, with `executor: ray`.")
    scratch: str = runtime_field("", description="Folder that all machines of a Ray cluster share; empty: the store's.")
    memory_megabytes: int = runtime_field(
        256, ge=16, description="Memory for steps over the whole corpus; larger data is processed in rounds."
    )

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

    @model_validator(mode="after")
    def _windows_fit(self) -> CorpusConfig:
        for name, source in self.sources.items():
            if (source.letters_per_document or 0) > self.maximum_record_bytes:
                raise ValueError(
                    f"source {name}: letters_per_document ({source.letters_per_document:,}) is more than "
                    f"maximum_record_bytes ({self.maximum_record_bytes:,})"
                )
        return self
