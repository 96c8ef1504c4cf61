"""Whether a model fits the available memory, checked before anything is allocated, and what would make it fit.

The estimate of activations may be half as high again as what is needed (`tests/models/test_memory.py` holds it to
that), so that only what cannot fit is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from models.lora import Lora
from models.memory import Checkpointing, Memory, training_memory
from models.sizes import SIZES, ModelConfig, config_for_size
from stages.store.errors import ConfigError

SURE = 0.7
"""Share of the estimated activations that is needed for sure."""
GIB = 1 << 30
_MOST_WORKERS = 1024


@dataclass(frozen=True)
class Demand:
    """What decides the memory of a run."""

    size: str
    """Name of the model's size."""
    vocabulary_size: int
    sequence_length: int
    """Tokens of the longest sequence."""
    micro_batch_size: int
    checkpointing: Checkpointing
    bytes_per_activation: int
    """Of the number format of the products."""
    workers: int
    replicas: int
    """Copies of the model, each sharded over workers / replicas."""
    sharing: int
    """Workers that share one memory: those of a machine on CPUs, 1 on GPUs."""
    host: bool
    """True on CPUs."""
    base: ModelConfig | None = None
    """Shape of the base that the run goes on from, in place of the size's."""
    lora: Lora | None = None
    """The adapters that are trained; None: all weights are."""

    def memory(self) -> Memory:
        """Of one worker, estimated."""
        return training_memory(
            self.base or config_for_size(self.size, self.vocabulary_size, self.sequence_length),
            micro_batch=self.micro_batch_size,
            sequence_length=self.sequence_length,
            shards=self.workers // self.replicas,
            checkpointing=self.checkpointing,
            bytes_per_activation=self.bytes_per_activation,
            host=self.host,
            lora=self.lora,
        )

    def least(self) -> int:
        """Bytes that all workers who share a memory need for sure."""
        one = self.memory()
        lasting = one.weights + one.gradients + one.optimizer_state
        return self.sharing * (lasting + int(SURE * (one.total - lasting)))

    def estimate(self) -> int:
        """Bytes that they need by the estimate."""
        return self.sharing * self.memory().total


def check_memory(demand: Demand, available_bytes: int) -> None:
    """Refuses a model that cannot fit.

    Args:
        available_bytes: of a GPU, or left on the machine.

    Raises:
        ConfigError: what is needed, by part, what is available, and the changes that would make it fit.
    """
    if demand.least() <= available_bytes:
        return
    one = demand.memory()
    parts = ("weights", "gradients", "optimizer_state", "gathered", "activations", "loss")
    needs = ", ".join(f"{part.replace('_', ' ')} {getattr(one, part) / GIB:.1f}" for part in parts)
    where = "on this machine" if demand.host else "on each GPU"
    each = f", {demand.sharing} workers with {one.total / GIB:.1f} each" if demand.sharing > 1 else ""
    options = alternatives(demand, available_bytes)
    would = [f"{_changed_settings(demand, option)} ({option.estimate() / GIB:.1f} GiB)" for option in options]
    smallest = "not even the smallest size" if demand.base is None else "no setting of this machine, but a smaller base"
    remedy = f"one of these would fit: {'; '.join(would)}" if would else f"{smallest} would fit"
    what = f"size {demand.size}" if demand.base is None else "the base"
    raise ConfigError(
        f"training: {what} does not fit: it needs about {demand.estimate() / GIB:.1f} GiB {where}{each} "
        f"({needs}), and {available_bytes / GIB:.1f} GiB are available; {remedy}"
    )


def alternatives(demand: Demand, available_bytes: int) -> list[Demand]:
    """What would fit, by the whole estimate: of each kind of change the one that changes least."""
    rows, modes, sizes = demand.micro_batch_size, get_args(Checkpointing), list(SIZES)
    frugal = replace(demand, micro_batch_size=1, checkpointing="full")
    smaller = sizes[: sizes.index(demand.size)][::-1] if demand.base is None else []
    kinds: list[Iterable[Demand]] = [
        (replace(demand, micro_batch_size=rows >> shift) for shift in range(1, rows.bit_length())),
        (replace(demand, checkpointing=mode) for mode in modes[modes.index(demand.checkpointing) + 1 :]),
        _other_workers(demand),
        (replace(base, size=name) for base in (demand, frugal) for name in smaller),
    ]
    fitting = [next((option for option in kind if option.estimate() <= available_bytes), None) for kind in kinds]
    if not any(fitting[:3]):  # no setting by itself keeps the size
        together = [frugal, *_other_workers(frugal)]
        fitting.insert(0, next((option for option in together if option.estimate() <= available_bytes), None))
    return [option for option in fitting if option is not None]


def _other_workers(demand: Demand) -> Iterator[Demand]:
    """Fewer workers of a machine that share its memory; on GPUs more, which share the weights out."""
    if not demand.host:
        workers = 2 * demand.workers
        while workers <= _MOST_WORKERS:
            yield replace(demand, workers=workers)
            workers *= 2
    elif demand.sharing == demand.workers:
        for workers in range(demand.workers - demand.replicas, 0, -demand.replicas):
            yield replace(demand, workers=workers, sharing=workers)


def _changed_settings(demand: Demand, option: Demand) -> str:
    """The settings by which an option differs, as a recipe has them."""
    settings = {
        "micro_batch_size": "parallelism.micro_batch_size",
        "checkpointing": "parallelism.activation_checkpointing",
        "workers": "parallelism.workers",
        "size": "model.size",
    }
    changed = {theirs: getattr(option, ours) for ours, theirs in settings.items()}
    before = {theirs: getattr(demand, ours) for ours, theirs in settings.items()}
    return " with ".join(f"training.{name}: {value}" for name, value in changed.items() if value != before[name])
