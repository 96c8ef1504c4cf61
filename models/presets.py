"""Replicas, micro-batch and checkpointing of a model for a number of GPUs, from the estimate of its memory.

A pure function of sizes: it queries no hardware and allocates nothing. Its preferences, in this order:

1. a replica within a machine, whose GPUs are connected by NVLink: one GPU, or the 8 of a machine, before 16, 32, ...;
2. no recomputation, else `selective`, which repeats no product, with a micro-batch of ENOUGH_TOKENS;
3. `full` with a micro-batch of ENOUGH_TOKENS, which costs a third more work;
4. any configuration that fits, with at least one sequence.

The micro-batch is the largest power of two of sequences that fits, up to MOST_TOKENS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from models.lora import Lora
from models.memory import Checkpointing, Memory, training_memory
from models.sizes import ModelConfig

GPUS_PER_MACHINE = 8
"""GPUs that are connected by NVLink."""
ENOUGH_TOKENS = 8192
"""Tokens per forward pass that hide the all-gather of the next layer: at 400 TFLOP/s a weight's 6 operations per token
take as long as its 8 bytes over NVLink after about 2,000 tokens, over a network of 400 Gbit/s per GPU after 10,000."""
MOST_TOKENS = 32768
"""More do not make products faster."""
USABLE_RATIO = 0.9
"""Share of a GPU's memory that is planned with: fragmentation takes the rest."""
RESERVED_BYTES = 2 << 30
"""The CUDA context and the buffers of cuBLAS and NCCL."""


@dataclass(frozen=True)
class Preset:
    """How one model is trained on a number of GPUs."""

    gpus: int
    replicas: int
    """Replicas of the model, each sharded over gpus / replicas GPUs."""
    micro_batch: int
    """Sequences per forward pass on each GPU."""
    activation_checkpointing: Checkpointing
    memory: Memory
    """Estimate for each GPU."""
    fits: bool

    @property
    def shards(self) -> int:
        """GPUs that share one replica."""
        return self.gpus // self.replicas


def preset(
    config: ModelConfig,
    sequence_length: int,
    gpus: int,
    gpu_memory: int,
    *,
    max_micro_batch: int | None = None,
    bytes_per_activation: int = 2,
    replicas: int | None = None,
    micro_batch: int | None = None,
    activation_checkpointing: Checkpointing | None = None,
    lora: Lora | None = None,
) -> Preset:
    """The preset of a model; keyword arguments fix some of the choices.

    Args:
        sequence_length: tokens per sequence.
        gpu_memory: bytes of each GPU.
        max_micro_batch: sequences in a GPU's share of the batch; None: unlimited.
        bytes_per_activation: of the number format of the products.
        lora: the adapters that are trained; None: all weights are.

    Returns:
        The best preset; if none fits, the one with the least memory, with `fits` False.
    """
    available = int(gpu_memory * USABLE_RATIO) - RESERVED_BYTES
    modes = (activation_checkpointing,) if activation_checkpointing else get_args(Checkpointing)
    cheap = [mode for mode in modes if mode != "full"]
    replica_counts = [replicas] if replicas else list(_replica_counts(gpus))
    largest = max(1, MOST_TOKENS // sequence_length)
    enough = max(1, ENOUGH_TOKENS // sequence_length)
    if max_micro_batch is not None:
        largest, enough = min(largest, max_micro_batch), min(enough, max_micro_batch)
    if micro_batch:
        largest = enough = micro_batch

    def evaluate(count: int, mode: Checkpointing, rows: int) -> Preset:
        memory = training_memory(
            config,
            micro_batch=rows,
            sequence_length=sequence_length,
            shards=gpus // count,
            checkpointing=mode,
            bytes_per_activation=bytes_per_activation,
            lora=lora,
        )
        return Preset(gpus, count, rows, mode, memory, memory.total <= available)

    def enlarge(best: Preset) -> Preset:
        """The same with the largest micro-batch that fits."""
        while best.fits and best.micro_batch < largest:
            more = min(2 * best.micro_batch, largest)
            found = evaluate(best.replicas, best.activation_checkpointing, more)
            if not found.fits:
                break
            best = found
        return best

    choices = [(count, mode, enough) for count in replica_counts for mode in cheap]
    choices += [(count, mode, enough) for count in replica_counts for mode in modes if mode not in cheap]
    choices += [(count, mode, micro_batch or 1) for count in replica_counts for mode in modes]
    for choice in choices:
        found = evaluate(*choice)
        if found.fits:
            return enlarge(found)
    return found


def _replica_counts(gpus: int) -> Iterator[int]:
    """Numbers of replicas, from one per machine to one over all GPUs."""
    shards = min(gpus, GPUS_PER_MACHINE)
    while shards < gpus:
        if gpus % shards == 0:
            yield gpus // shards
        shards *= 2
    yield 1
