"""How a model is trained on so many GPUs: copies, micro-batch and checkpointing, from the estimate of its memory.

A pure function of sizes: it asks no machine and allocates nothing. What it prefers, in this order:

1. a copy within a machine, whose GPUs are joined by NVLink: one GPU, or the 8 of a machine, before 16, 32, ...;
2. nothing computed again, else `selective`, which repeats none of the products, with a micro-batch of ENOUGH_TOKENS;
3. `full` with a micro-batch of ENOUGH_TOKENS, which costs a third more work;
4. whatever fits, one sequence at the least.

The micro-batch is the largest power of two of sequences that fits, up to MOST_TOKENS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from models.memory import Checkpointing, Memory, training_memory
from models.sizes import ModelConfig

MACHINE = 8
"""GPUs that are joined by NVLink."""
ENOUGH_TOKENS = 8192
"""Tokens a forward pass behind which gathering the next layer hides: at 400 TFLOP/s a weight's 6 operations a token
take as long as its 8 bytes over NVLink after about 2,000 tokens, over a network of 400 Gbit/s a GPU after 10,000."""
MOST_TOKENS = 32768
"""More makes products no faster."""
USABLE = 0.9
"""Share of a GPU's memory that is planned with: the allocator's fragments take some."""
RESERVED = 2 << 30
"""Bytes of the CUDA context and the buffers of cuBLAS and NCCL."""


@dataclass(frozen=True)
class Preset:
    """How one model is trained on so many GPUs."""

    gpus: int
    replicas: int
    """Copies of the model, each sharded over gpus / replicas."""
    micro_batch: int
    """Sequences a forward pass on each GPU."""
    activation_checkpointing: Checkpointing
    memory: Memory
    """On each GPU, estimated."""
    fits: bool

    @property
    def shards(self) -> int:
        """GPUs that share one copy."""
        return self.gpus // self.replicas


def preset(
    config: ModelConfig,
    sequence_length: int,
    gpus: int,
    gpu_memory: int,
    *,
    most: int | None = None,
    bytes_per_activation: int = 2,
    replicas: int | None = None,
    micro_batch: int | None = None,
    activation_checkpointing: Checkpointing | None = None,
) -> Preset:
    """The preset of a model, or of what is left open where the keyword arguments decide a part.

    Args:
        sequence_length: tokens a sequence.
        gpu_memory: bytes of each.
        most: sequences of a GPU's share of the batch; absent: any number.
        bytes_per_activation: of the number format of the products.

    Returns:
        The best preset; where none fits, the one that comes nearest, with `fits` False.
    """
    room = int(gpu_memory * USABLE) - RESERVED
    modes = (activation_checkpointing,) if activation_checkpointing else get_args(Checkpointing)
    cheap = [mode for mode in modes if mode != "full"]
    copies = [replicas] if replicas else list(_copies(gpus))
    largest = max(1, MOST_TOKENS // sequence_length)
    enough = max(1, ENOUGH_TOKENS // sequence_length)
    if most is not None:
        largest, enough = min(largest, most), min(enough, most)
    if micro_batch:
        largest = enough = micro_batch

    def fitted(copy: int, mode: Checkpointing, rows: int) -> Preset:
        memory = training_memory(
            config,
            micro_batch=rows,
            sequence_length=sequence_length,
            shards=gpus // copy,
            checkpointing=mode,
            bytes_per_activation=bytes_per_activation,
        )
        return Preset(gpus, copy, rows, mode, memory, memory.total <= room)

    def grown(least: Preset) -> Preset:
        best = least
        while best.fits and best.micro_batch < largest:
            more = min(2 * best.micro_batch, largest)
            found = fitted(best.replicas, best.activation_checkpointing, more)
            if not found.fits:
                break
            best = found
        return best

    wishes = [(copy, mode, enough) for copy in copies for mode in cheap]
    wishes += [(copy, mode, enough) for copy in copies for mode in modes if mode not in cheap]
    wishes += [(copy, mode, micro_batch or 1) for copy in copies for mode in modes]
    for wish in wishes:
        found = fitted(*wish)
        if found.fits:
            return grown(found)
    return found


def _copies(gpus: int) -> Iterator[int]:
    """Numbers of copies, from one a machine to one over all."""
    shards = min(gpus, MACHINE)
    while shards < gpus:
        if gpus % shards == 0:
            yield gpus // shards
        shards *= 2
    yield 1
