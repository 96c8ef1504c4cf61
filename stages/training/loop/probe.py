"""A restart makes the first batch after its checkpoint again, and compares before the weights change.

The loss and the norm of the gradient are a function of the weights and the batch. If they are not what the attempt
before found with the same weights, then weights were changed on the way, or one of the two machines computes wrongly:
silent corruption, which no checksum of a file shows.
"""

from __future__ import annotations

import math

from stages.training.checkpoint.format import Probe
from stages.training.errors import TrainingError

TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
"""Relative difference that is allowed, by number format: other ranks and other processors add in another order. A
flipped high bit in one weight changes the norm by far more; a low bit is not seen."""


def check_probe(probe: Probe, batch: int, loss: float, grad_norm: float, precision: str, places: str) -> None:
    """Compares a batch with what it gave before. A batch that is skipped now cannot be compared.

    Args:
        places: where the run's checkpoints are, for the message.

    Raises:
        TrainingError: the two differ.
    """
    if probe.batch != batch:
        return
    for name, now, before in (("loss", loss, probe.loss), ("norm of the gradient", grad_norm, probe.grad_norm)):
        if not math.isclose(now, before, rel_tol=TOLERANCE[precision], abs_tol=1e-6):
            raise TrainingError(
                f"training: batch {batch}, made again from its checkpoint, has a {name} of {now:.6g}; it was "
                f"{before:.6g} before: the weights of the checkpoint were changed, or one of the two machines computes "
                f"wrongly (silent corruption); remove the checkpoint of step {batch} to resume from the one before (in "
                f"{places}), and test the machine's memory and cards"
            )
