"""The flow's work outside of its stages."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from flows import pretrain
from stages.training.cluster import driver as launch


def test_ray_is_not_started_during_the_import_of_a_library_that_holds_locks_in_forks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """loguru releases its locks after every fork; a fork during its import breaks it, and the corpus stage with it."""
    monkeypatch.delitem(sys.modules, "loguru", raising=False)
    started: list[tuple[int, bool]] = []
    monkeypatch.setattr(launch, "prestart", lambda workers: started.append((workers, "loguru" in sys.modules)))
    for workers in (0, 2):
        job: Any = SimpleNamespace(
            recipe=SimpleNamespace(training=SimpleNamespace(parallelism=SimpleNamespace(workers=workers)))
        )
        pretrain.start_early(job)
    assert started == [(2, True)]
