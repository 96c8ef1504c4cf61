"""What a run will read: its order, and the plan that is emitted before it starts. Needs no PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stages.store.artifact import Artifact
from stages.store.errors import ConfigError, StoreError
from stages.tokens.mixture import BLOCK
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.plan import plan
from stages.tokens.reader import STREAM
from stages.tokens.table import SHARDS, ShardTable
from stages.training.config import ReplayConfig, TrainingConfig

PLAN = "plan"
"""Type of the event that says what a run will read: `tokens` (folder) and their `digest`, `config` (all of it), `plan`,
and `base`, the folder of the model that it goes on from, if it does.
It is enough to know the order of a run that has no manifest yet."""


def run_order(shards: ShardTable, tokens_digest: str, config: TrainingConfig) -> Order:
    """The order in which a run reads these shards.

    Raises:
        ConfigError: phases that cannot be drawn from them.
    """
    data = config.data
    phases = [
        Phase(
            phase.steps * data.global_batch_size,
            phase.rows_per_sample,
            phase.weights if data.replay is None else _with_replay(shards, phase.weights, data.replay),
            phase.repeat,
        )
        for phase in config.phases
    ]
    return Order(shards, tokens_digest, config.seed, phases, data.shuffle_window_shards, data.streams)


def _with_replay(shards: ShardTable, weights: Mapping[str, float] | None, replay: ReplayConfig) -> dict[str, float]:
    """Weights in which the source that is replayed has its share, and the others, by their weights or sizes, the rest.

    Raises:
        ConfigError: there is no such source, or no other.
    """
    sizes = {name: float(rows.sum()) for name, rows in zip(shards.sources, shards.rows, strict=True)}
    if replay.source not in sizes:
        raise ConfigError(
            f"training.data.replay.source: {replay.source!r} is no source of these tokens; there are {', '.join(sizes)}"
        )
    others = {
        name: weight
        for name, weight in (sizes if weights is None else weights).items()
        if weight > 0 and name != replay.source
    }
    if not others:
        raise ConfigError(f"training.data.replay: there is no source besides {replay.source!r}; add documents to learn")
    total = sum(others.values())
    least = 1 / BLOCK if weights is None else 0.0  # small sources are drawn too, as without replay
    shares = {name: max(least, weight / total * (1 - replay.share)) for name, weight in others.items()}
    return shares | {replay.source: replay.share}


def plan_of(tokens: Artifact, config: TrainingConfig) -> dict[str, Any]:
    """The plan (`stages.tokens.plan.Plan` as JSON values) of a run on these tokens, beside it `global_batch_size` and
    `steps`.

    Reads the table of shards and nothing else.

    Raises:
        ConfigError: phases that cannot be drawn from these tokens.
        StoreError: the artifact holds no token stream.
    """
    try:
        length = int(json.loads(tokens.read(STREAM))["sequence_length"])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"tokens: cannot read {STREAM} of {tokens.id}: {error}") from error
    shards = ShardTable.load(tokens.local(SHARDS).parent)
    found = plan(run_order(shards, tokens.digest, config), length)
    return found.as_dict() | {"global_batch_size": config.data.global_batch_size, "steps": config.steps}
