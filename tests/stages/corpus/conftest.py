"""Runs of the corpus stage over small sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.corpus import CorpusConfig, corpus, inputs_of
from stages.store import Artifact, Store


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Artifact]:
    """Runs the stage on `{source name: location}`; keywords are further fields of the config."""

    def run_once(sources: Mapping[str, Path | dict[str, Any]], store: str = "store", **fields: Any) -> Artifact:
        described = {
            name: where if isinstance(where, dict) else {"location": str(where)} for name, where in sources.items()
        }
        config = CorpusConfig.model_validate({"sources": described, "workers": 1, **fields})
        return corpus.run(config, inputs_of(config), Store(tmp_path / store))

    return run_once
