"""Configuration of the evaluation stage: sets, prompts, limits, held-out documents, devices."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from stages.store import Config, ConfigError, runtime_field

Formulation = Literal["cloze", "letter"]
Normalisation = Literal["none", "characters", "bytes"]
EqualOptions = Literal["refuse", "leave_out"]

TRAIN_SUFFIX = "_train"
"""Sets whose name ends in this, in any case, are used for decontamination only and never scored."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class SetConfig(Config):
    """How one question set is scored."""

    limit: int | None = Field(default=None, ge=0)
    """Questions to score: a subset determined by the seed. Empty: `default_limit`; 0: all."""
    formulations: tuple[Formulation, ...] = ("cloze",)
    """`cloze` scores each option's text as the answer; `letter` lists the options and scores their letters. Models
    below a billion parameters do poorly with letters (OLMES, arXiv 2406.08446), so the gate uses `cloze`."""
    normalise: Normalisation = "none"
    """Which cloze prediction defines the accuracy: highest log-likelihood, unnormalised, per character (lm-eval's
    `acc_norm`) or per byte (`acc_bytes`). All three are in the metrics."""
    prompt: str = "Question: {question}\nAnswer:"
    """Prompt of the cloze formulation; `{question}` is replaced, and the answer follows after a space."""
    letter_prompt: str = "Question: {question}\n{options}\nAnswer:"
    """Prompt of the letter formulation; `{options}` becomes one line per option, `A. text`."""
    context_prompt: str = "{context}\n\n"
    """Prefix of the prompt if a question has a context."""

    equal_options: EqualOptions = "refuse"
    """What is done with questions in which two options are equal, so that the second can never be predicted: `refuse`
    the set, or `leave_out` those questions, counted."""

    @field_validator("formulations")
    @classmethod
    def _formulations(cls, value: tuple[Formulation, ...]) -> tuple[Formulation, ...]:
        if "cloze" not in value:
            raise ValueError("`formulations` must contain cloze, which baselines and gate use")
        return tuple(dict.fromkeys(value))

    @field_validator("prompt", "letter_prompt", "context_prompt")
    @classmethod
    def _placeholders(cls, value: str, info: object) -> str:
        name = getattr(info, "field_name", "")
        needed = {"prompt": ["question"], "letter_prompt": ["question", "options"], "context_prompt": ["context"]}[name]
        missing = [f"{{{word}}}" for word in needed if f"{{{word}}}" not in value]
        if missing:
            raise ValueError(f"`{name}` must contain {', '.join(missing)}")
        return value


class EvaluationConfig(Config):
    """The evaluation stage: question sets through lm-eval, and bits-per-byte on held-out documents."""

    sets: dict[str, SetConfig] = Field(default_factory=dict)
    """Options of sets by name. An input set that is not named here is scored with the defaults."""
    default_limit: int | None = Field(default=None, ge=1)
    """Questions per set for sets without their own limit; empty: all."""
    seed: int = 0
    """Determines which questions and which held-out documents a limited run uses."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Number format of the weights while scoring; `auto`: the file's."""
    max_length: int | None = Field(default=None, ge=8)
    """Context length in tokens; longer prompts are truncated on the left. Empty: the model's maximum."""
    heldout_documents: int | None = Field(default=2000, ge=0)
    """Held-out documents for bits-per-byte, chosen by the seed; empty: all, 0: none."""
    heldout_bytes: int | None = Field(default=4_000_000, ge=1)
    """Limit of the held-out documents' total bytes; empty: no limit."""
    general: str | None = runtime_field(None)
    """Text of another kind than the model is trained on, on which is measured what it forgets: a file or folder of
    JSON Lines with a field `text`, or of plain text; absolute path or URL. Empty: for a model that goes on from a base,
    the descriptions of installed packages; for one from scratch, nothing. Only its content is hashed, as an input."""
    general_bytes: int = Field(default=100_000, ge=1)
    """Bytes of it that are scored: the beginnings of at most 32 documents, chosen by the seed."""
    unigram_tokens: int | None = Field(default=20_000_000, ge=1)
    """Training tokens that the unigram baseline counts, distributed over all shards; empty: all."""
    markov_order: int | None = Field(default=None, ge=1, le=24)
    """Context bytes of a second baseline for bits-per-byte: a Markov model that mixes the counts of all orders up to
    this one. 3 to 6 for text, 8 to 12 for DNA. Empty: no such baseline."""
    markov_bytes: int | None = Field(default=16_000_000, ge=1)
    """Bytes of training documents that it counts, distributed over all shards, with up to 100 bytes of memory each;
    empty: all."""

    batch_size: int | None = runtime_field(None, ge=1)
    """Prompts per forward pass; empty: as many as `memory_mib` of logits allow."""
    memory_mib: int | None = runtime_field(None, ge=1)
    """Memory for the logits of one forward pass; empty: 32 on a CPU, where smaller batches fit into its caches (half
    the CPU time of 512), 1024 on a GPU."""
    device: str = runtime_field("auto")
    """`cpu`, `cuda`, `cuda:1`; `auto`: a GPU if available."""
    threads: int | None = runtime_field(None, ge=1)
    """CPU threads, which also limits concurrent forward passes; empty: PyTorch's default, one per core."""

    @field_validator("sets")
    @classmethod
    def _sets(cls, value: dict[str, SetConfig]) -> dict[str, SetConfig]:
        for name in value:
            check_name(name)
            if is_training_split(name):
                raise ValueError(f"`sets`: {name!r} ends in {TRAIN_SUFFIX} and is never scored; remove it")
        return value

    def options(self, name: str) -> SetConfig:
        """The options of set `name`, or the defaults."""
        return self.sets.get(name, SetConfig())

    def limit(self, name: str) -> int | None:
        """How many questions of set `name` are scored; None: all."""
        own = self.options(name).limit
        return self.default_limit if own is None else (own or None)


def is_training_split(name: str) -> bool:
    """Whether a set is used for decontamination only, by its name."""
    return name.lower().endswith(TRAIN_SUFFIX)


def check_name(name: str) -> None:
    """Checks the name that a recipe gives a set; it is used in file and metric names.

    Raises:
        ConfigError: the name has other characters than letters, digits, `_`, `.` and `-`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"question set {name!r}: a name may contain only letters, digits, '_', '.', '-'")
