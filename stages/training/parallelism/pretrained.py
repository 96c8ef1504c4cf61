"""A base's weights into a model that may be sharded: each rank reads the rows that it holds, from its own machine.

Adapters, which no base has, get their initial values, the same on any number of ranks.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models.decoder import Decoder
from models.initialize import initial_value
from models.lora import is_adapter
from models.pretrained import PretrainedWeights, check_finite, check_tensors
from stages.store.errors import StoreError
from stages.training.checkpoint.layout import local_pieces
from stages.training.parallelism.ranks import Ranks, fill_shard


@torch.no_grad()
def fill_pretrained(model: Decoder, ranks: Ranks, folder: Path, seed: int) -> None:
    """Fills a model's parameters, which have their memory, from a Hugging Face folder. Every rank must call it.

    Args:
        seed: decides the initial values of adapters.

    Raises:
        StoreError: on every rank, if any of them cannot read its part.
    """
    parameters = dict(model.named_parameters())
    adapters = {name: parameters.pop(name) for name in [*parameters] if is_adapter(name)}
    for name, parameter in adapters.items():
        fill_shard(parameter, initial_value(name, parameter.shape, seed).to(ranks.device))
    error = ""
    try:
        with PretrainedWeights(folder) as weights:
            check_tensors(model.config, weights)
            for piece in local_pieces(parameters, owned=False):
                rows = weights.rows(piece.name, piece.start[0], piece.start[0] + len(piece.tensor))
                check_finite(piece.name, rows)
                piece.tensor.copy_(rows)
    except (OSError, ValueError) as failure:
        error = f"training: the base's weights cannot be read: {failure}"
    if message := ranks.first_message(error):
        raise StoreError(message)
