"""Which workers a config asks for."""

from __future__ import annotations

from stages.corpus.config import CorpusConfig
from stages.corpus.execution.executor import Workers


def make_workers(config: CorpusConfig) -> Workers:
    """The workers that the config asks for. Ray is imported by none but its own, and not in this process."""
    if config.executor == "ray":
        from stages.corpus.execution.ray_workers import RayWorkers

        return RayWorkers(config.workers, config.ray_address)
    from stages.corpus.execution.local_workers import LocalWorkers

    return LocalWorkers(config.workers)
