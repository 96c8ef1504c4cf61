"""The sample as a stage: a domain's documents, question sets and truth file become an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from stages.sample.biomed import generate as generate_biomed
from stages.sample.finance import generate as generate_finance
from stages.sample.genomics import generate as generate_genomes
from stages.sample.planted import MINIMUM_MEGABYTES
from stages.store import ArtifactWriter, Config, Stage

GENERATE: dict[str, Callable[..., dict[str, Any]]] = {
    "biomed": generate_biomed,
    "finance": generate_finance,
    "genomics": generate_genomes,
}
"""By domain, `generate(folder, *, seed, megabytes)`, which writes `documents/<source>/`, `eval/` and `truth.jsonl`, and
returns counts under `documents`, `bytes`, `facts`, `planted` and `sources`."""


class SampleConfig(Config):
    """Which synthetic sample to generate, and how much of it."""

    domain: Literal["biomed", "finance", "genomics"] = "biomed"
    """biomed: drugs, diseases and organisms; finance: a financial company's own data beside public
    text; genomics: contigs of made-up bacteria in FASTA."""
    seed: int = Field(1, ge=0)
    """Seed of facts, forms and planted defects; equal seeds give equal bytes."""
    megabytes: float = Field(10.0, ge=MINIMUM_MEGABYTES, le=1000)
    """Size of the text, in 10^6 characters over all sources, approximately."""


def build(config: SampleConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Generates into a work folder and moves every file into the artifact under its own name."""
    folder = writer.work("sample")
    result = GENERATE[config.domain](folder, seed=config.seed, megabytes=config.megabytes)
    writer.counts.update({key: result[key] for key in ("documents", "bytes", "facts")})
    writer.counts.update({f"planted {kind}": count for kind, count in result["planted"].items()})
    writer.details["sources"] = result["sources"]
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.rename(writer.file(path.relative_to(folder).as_posix()))


sample = Stage("sample", 2, build)
