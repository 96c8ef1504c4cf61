"""The embedded sample as a stage: its documents, question sets and truth become an artifact like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from stages.artifact import ArtifactWriter, Config, Stage
from stages.sample.generate import generate


class SampleConfig(Config):
    """How much synthetic text to make."""

    seed: int = Field(1, ge=0)
    """Chooses facts, forms and planted defects; equal seeds give equal bytes."""
    megabytes: float = Field(10.0, ge=0.1, le=1000)
    """About how much text, in 10^6 characters over all sources."""


def build(config: SampleConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Generates into a work folder and takes every file over under its own name."""
    folder = writer.work("sample")
    result = generate(folder, seed=config.seed, megabytes=config.megabytes)
    writer.counts.update({key: result[key] for key in ("documents", "bytes", "facts")})
    writer.counts.update({f"planted {kind}": count for kind, count in result["planted"].items()})
    writer.details["sources"] = result["sources"]
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.rename(writer.file(path.relative_to(folder).as_posix()))


sample = Stage("sample", 1, build)
