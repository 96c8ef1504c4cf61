"""Bits-per-byte on held-out documents: comparable between tokenizers, where a loss per token is not.

After nanochat's `loss_eval.py`: summed nats of targets that stand for bytes, over those bytes, both over all ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.decoder import Decoder
from stages.tokens.batch import counts_for_bits_per_byte
from stages.tokens.reader import TokenReader
from stages.training.loop.data import Batch
from stages.training.parallelism.ranks import Ranks, reshard
from stages.training.preflight.checks import check_ids


@dataclass(frozen=True)
class BitsPerByte:
    """What a model needs for held-out text."""

    total: float
    """Over all rows."""
    by_source: dict[str, float]
    """Of the sources that have a row with text among them."""


class Validation:
    """The held-out rows that one run is judged on, `most` of them spread evenly over all (0: all)."""

    def __init__(self, folder: Path, most: int):
        self.reader = TokenReader(folder, "heldout")
        every = [
            (source, shard, row)
            for source, shards in enumerate(self.reader.shards.rows)
            for shard, rows in enumerate(shards)
            for row in range(rows)
        ]
        count = len(every) if most == 0 else min(most, len(every))
        self.rows = [every[index * len(every) // count] for index in range(count)]

    def bits_per_byte(self, model: Decoder, ranks: Ranks, micro_batch: int) -> BitsPerByte | None:
        """Runs the model over the rows; None if they hold nothing to count. Every rank must call it."""
        eos_id, token_bytes, names = self.reader.eos_id, self.reader.token_bytes, self.reader.shards.sources
        mine = self.rows[ranks.rank :: ranks.world]
        most = -(-len(self.rows) // ranks.world)
        nats, size = np.zeros(len(names)), np.zeros(len(names))
        model.eval()
        with torch.no_grad():
            for start in range(0, most, micro_batch):
                places = mine[start : start + micro_batch]
                # A rank that has no rows left repeats the first one, uncounted: FSDP needs equal collectives.
                taken = places or self.rows[:1]
                rows = self.reader.batch(taken)
                check_ids(rows, self.reader, lambda taken=taken: np.asarray(taken))  # type: ignore[misc]
                batch = Batch.of(rows, eos_id)
                _, costs = model(batch.tokens.to(ranks.device), batch.targets.to(ranks.device))
                if not places:
                    continue
                targets, sources = batch.targets.numpy(), [source for source, _, _ in places]
                counts = counts_for_bits_per_byte(targets, eos_id)
                np.add.at(nats, sources, np.where(counts, costs.double().cpu().numpy(), 0.0).sum(axis=1))
                np.add.at(size, sources, np.where(counts, token_bytes[np.where(counts, targets, 0)], 0).sum(axis=1))
        reshard(model)
        model.train()
        sums = np.array(ranks.all_reduce_sum([*nats, *size])).reshape(2, -1)
        bits, size = sums[0] / math.log(2), sums[1]
        if not size.any():
            return None
        by_source = {name: float(bits[s] / size[s]) for s, name in enumerate(names) if size[s]}
        return BitsPerByte(float(bits.sum() / size.sum()), by_source)
