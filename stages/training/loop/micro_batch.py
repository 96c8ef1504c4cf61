"""How much each rank computes at once: sequences in a forward pass, and what is computed again for the backward pass.

Neither changes what is computed, the one but for rounding, the other not at all. On a GPU both come from the model's
preset (`models/presets.py`) where the recipe leaves them open.
"""

from __future__ import annotations

import torch

from models.lora import Lora
from models.memory import Checkpointing
from models.presets import Preset, preset
from models.sizes import ModelConfig
from stages.training.config import ParallelismConfig
from stages.training.parallelism.ranks import Ranks

MICRO_BATCH_TOKENS = 4096
"""Tokens a forward pass on a CPU: big enough for good products, small enough for 12 GiB."""


class MicroBatches:
    """The choice for one run, a function of recipe and machines, so that a resumed run adds up the same way.

    Args:
        dtype: number format of the products.
        max_rows: sequences of the rank that has most.
        longest: tokens of the longest sequence of any phase.
        gpu_memory: bytes of the smallest GPU; None on CPUs.
        lora: the adapters that are trained; None: all weights are.
    """

    def __init__(
        self,
        config: ParallelismConfig,
        shape: ModelConfig,
        world: int,
        dtype: torch.dtype,
        max_rows: int,
        longest: int,
        gpu_memory: int | None,
        lora: Lora | None = None,
    ):
        self.config, self.shape, self.world, self.dtype, self.lora = config, shape, world, dtype, lora
        self.max_rows, self.gpu_memory = max_rows, gpu_memory
        wanted = config.activation_checkpointing
        self._fixed: Checkpointing | None = None if wanted == "auto" else wanted
        if self._fixed is None:
            self._fixed = "none" if gpu_memory is None else self._preset(longest, gpu_memory).activation_checkpointing

    @property
    def activation_checkpointing(self) -> Checkpointing:
        """One for the whole run: that of its longest sequences."""
        assert self._fixed is not None
        return self._fixed

    def rows(self, length: int) -> int:
        """Sequences of `length` tokens a forward pass."""
        if self.config.micro_batch_size != "auto":
            return self.config.micro_batch_size
        if self.gpu_memory is None:
            return max(1, min(self.max_rows, round(MICRO_BATCH_TOKENS / length)))
        return self._preset(length, self.gpu_memory).micro_batch

    def _preset(self, length: int, gpu_memory: int) -> Preset:
        return preset(
            self.shape,
            length,
            self.world,
            gpu_memory,
            max_micro_batch=self.max_rows,
            bytes_per_activation=self.dtype.itemsize,
            replicas=self.config.replicas(self.world),
            micro_batch=None if self.config.micro_batch_size == "auto" else self.config.micro_batch_size,
            activation_checkpointing=self._fixed,
            lora=self.lora,
        )


def gpu_memory(ranks: Ranks) -> int | None:
    """Bytes of the smallest GPU among the ranks'; None on CPUs. Every rank must call it."""
    if ranks.device.type != "cuda":
        return None
    return min(ranks.all_gather_json(torch.cuda.get_device_properties(ranks.device).total_memory))
