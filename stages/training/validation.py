"""Bits-per-byte on held-out documents: comparable between tokenizers, where a loss per token is not.

After nanochat's `loss_eval.py`: summed nats of targets that stand for bytes, over those bytes, both over all ranks.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from models.decoder import Decoder
from stages.tokens.batch import counted, counted_bytes
from stages.tokens.reader import TokenReader
from stages.training.checks import check_ids
from stages.training.data import Batch
from stages.training.parallel import Ranks, reshard


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

    def bits_per_byte(self, model: Decoder, ranks: Ranks, micro_batch: int) -> float | None:
        """Runs the model over the rows; None if they hold nothing to count. Every rank must call it."""
        eos_id, token_bytes = self.reader.eos_id, self.reader.token_bytes
        mine = self.rows[ranks.rank :: ranks.world]
        most = -(-len(self.rows) // ranks.world)
        nats, size = 0.0, 0
        model.eval()
        with torch.no_grad():
            for start in range(0, most, micro_batch):
                places = mine[start : start + micro_batch]
                rows = self.reader.batch(places)
                check_ids(rows, self.reader, lambda places=places: np.asarray(places))  # type: ignore[misc]
                # A rank that has run out goes on with the first row, uncounted: FSDP needs equal collectives.
                short = not len(rows)
                batch = Batch.of(self.reader.batch(self.rows[:1]) if short else rows, eos_id)
                _, costs = model(batch.tokens.to(ranks.device), batch.targets.to(ranks.device))
                if short:
                    continue
                targets = batch.targets.numpy()
                nats += float(costs.double().cpu().numpy()[counted(targets, eos_id)].sum())
                size += counted_bytes(targets, eos_id, token_bytes)
        reshard(model)
        model.train()
        nats, size = ranks.sum([nats, float(size)])  # type: ignore[assignment]
        return nats / math.log(2) / size if size else None
