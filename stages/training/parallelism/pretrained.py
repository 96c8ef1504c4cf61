"""A base's weights into a model that may be sharded: each rank reads the rows that it holds, from its own machine."""

from __future__ import annotations

from pathlib import Path

import torch

from models.decoder import Decoder
from models.pretrained import PretrainedWeights, check_finite, check_tensors
from stages.store.errors import StoreError
from stages.training.checkpoint.layout import local_pieces
from stages.training.parallelism.ranks import Ranks


@torch.no_grad()
def fill_pretrained(model: Decoder, ranks: Ranks, folder: Path) -> None:
    """Fills a model's parameters, which have their memory, from a Hugging Face folder. Every rank must call it.

    Raises:
        StoreError: on every rank, if any of them cannot read its part.
    """
    error = ""
    try:
        with PretrainedWeights(folder) as weights:
            check_tensors(model.config, weights)
            for piece in local_pieces(dict(model.named_parameters()), owned=False):
                rows = weights.rows(piece.name, piece.start[0], piece.start[0] + len(piece.tensor))
                check_finite(piece.name, rows)
                piece.tensor.copy_(rows)
    except (OSError, ValueError) as failure:
        error = f"training: the base's weights cannot be read: {failure}"
    if message := ranks.first_message(error):
        raise StoreError(message)
