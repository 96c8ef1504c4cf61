"""How ranks talk to one another."""

from __future__ import annotations

BACKEND = "cpu:gloo,cuda:nccl"
"""On GPUs tensors go over NCCL; control and checkpoints, on the host, over gloo."""

TIMEOUT_SECONDS = 600
"""How long a rank waits for another in a collective."""
