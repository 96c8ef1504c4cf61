"""What a training run can be told."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from models.sizes import SIZES
from stages.store import Config, how


def _drawable(weights: dict[str, float]) -> dict[str, float]:
    for source, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"source {source!r} has {weight}; a weight is a number, 0 or more")
    if not any(weights.values()):
        raise ValueError("all weights are 0; give at least one source a positive weight, or none at all to go by size")
    return weights


def _limits(repeat: float | dict[str, float]) -> float | dict[str, float]:
    for source, epochs in repeat.items() if isinstance(repeat, dict) else [("", repeat)]:
        if not (math.isfinite(epochs) and epochs > 0):
            whose = f"source {source!r} has {epochs}" if source else f"it is {epochs}"
            raise ValueError(f"{whose}; the most epochs of a source are a number above 0, or absent for no limit")
    return repeat


Weights = Annotated[dict[str, float], AfterValidator(_drawable)]
Repeat = Annotated[float | dict[str, float], AfterValidator(_limits)]
_Decay = Annotated[float, Field(ge=0, lt=1)]


class PhaseConfig(Config):
    """A part of the run with one mixture and one sample length."""

    steps: int = Field(gt=0)
    """Batches in the phase."""
    k: int = Field(1, gt=0)
    """Rows of the token stream a sample: a power of two. Sequences are k times the stream's row."""
    weights: Weights | None = None
    """Share of each source; sources that are not named are not drawn. Absent: by size."""
    repeat: Repeat | None = None
    """Most epochs of each source; one that has used them up leaves the mixture. Absent: no limit."""


class TrainingConfig(Config):
    """Pretraining of a decoder on a token stream."""

    size: str = "nano"
    """Name of the model's size: 1m, nano, 7m, 11m, 30m, 125m, 350m, 760m, 1.3b, 2.7b, 7b, 13b, 30b, 70b."""
    steps: int = Field(200, gt=0)
    """Batches to train on."""
    batch: int = Field(32, gt=0)
    """Sequences a batch, over all workers; a multiple of `lanes`."""
    seed: int = 0
    """Decides the initial weights and the order of the data."""
    k: int = Field(1, gt=0)
    """Rows of the token stream a sample, a power of two, where no phases are given."""
    weights: Weights | None = None
    """Share of each source where no phases are given. Absent: by size."""
    phases: tuple[PhaseConfig, ...] = ()
    """Curriculum: phases in turn, whose steps add up to `steps`. Absent: one phase."""
    skip: tuple[tuple[int, int], ...] = ()
    """Batches that are left out, as ranges [first, end) of batch numbers: data that spoiled an earlier run."""
    window: int = Field(16, gt=0)
    """Consecutive pieces (shards) of a source that are shuffled together."""
    lanes: int = Field(1, gt=0)
    """Independent streams of data; a big cluster takes as many as it has nodes."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate. Absent: the OLMo ladder's, 0.0047 / 2 x (parameters / 108M)^(-1/3)."""
    warmup: int = Field(20, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["wsd", "cosine"] = "wsd"
    """Learning rate after the warm-up. wsd: stable, then a linear decay; cosine: half a cosine from peak to end."""
    decay: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls linearly; wsd only."""
    final_learning_rate: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """muon for the layers' matrices and adamw for embedding, head and norms, or adamw for all parameters. The learning
    rate means the same for both. On the sample Muon won at equal time (docs/benchmarks.md)."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay rate of Muon's average of gradients."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices; norms and the embedding have none."""
    betas: tuple[_Decay, _Decay] = (0.9, 0.95)
    """Decay rates of Adam's two averages."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a longer one is scaled down to it."""
    z_loss: float = Field(1e-5, ge=0)
    """Weight of the squared log of the softmax's denominator, which keeps logits from drifting."""

    workers: int = how(2, ge=0)
    """Processes that share the model. 0: train in the calling process, without Ray."""
    replicas: int = how(1, ge=1)
    """Copies of the model; each is sharded over workers / replicas of them. On many machines a copy a machine spares
    the network; 1 needs the least memory."""
    micro_batch: int = how(0, ge=0)
    """Sequences a forward pass in each worker. 0: on GPUs as many as the size's preset says, on CPUs about 4,096
    tokens."""
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = how("auto")
    """What the backward pass computes again instead of keeping it. selective: all but products and attention. full:
    whole layers, in the least memory. auto: none on CPUs, on GPUs as the size's preset says."""
    device: Literal["auto", "cpu", "cuda"] = how("auto")
    """Where to compute. auto: a GPU if there is one."""
    precision: Literal["auto", "bf16", "fp32"] = how("auto")
    """Number format of the products; weights and their updates are fp32 always. auto: time one product of each at the
    start of the run and keep the faster, for the whole run."""
    compile: Literal["auto", "on", "off"] = how("auto")
    """Whether PyTorch's compiler makes the layers' kernels. auto: on GPUs; CPUs have loops of our own."""
    checkpoint_every: int = how(100, gt=0)
    """Steps between checkpoints. The last two are kept."""
    validate_every: int = how(100, gt=0)
    """Steps between validations on held-out documents; there is one at the end."""
    validation_rows: int = how(64, ge=0)
    """Held-out rows a validation, spread evenly over them. 0: all."""
    max_failures: int = how(3, ge=0)
    """Times that a lost worker is replaced before the run gives up."""
    stop_grace: float = how(60.0, ge=0)
    """Seconds that workers get to write a checkpoint when the run is stopped."""

    @field_validator("size")
    @classmethod
    def _known_size(cls, value: str) -> str:
        if value not in SIZES:
            raise ValueError(f"no model size {value!r}; there are {', '.join(SIZES)}")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> TrainingConfig:
        if self.batch % self.lanes:
            low = self.batch // self.lanes * self.lanes
            fitting = f"{low} or {low + self.lanes}" if low else f"{self.lanes}"
            raise ValueError(
                f"training.batch ({self.batch}) is no multiple of training.lanes ({self.lanes}), and a batch takes as "
                f"much of each lane; {fitting} would be"
            )
        if self.micro_batch > self.batch:
            raise ValueError(
                f"training.micro_batch ({self.micro_batch}) is more than the whole training.batch ({self.batch}); it "
                "counts sequences, not tokens: 0 has it chosen"
            )
        if self.workers % self.replicas:
            more = -(-self.workers // self.replicas) * self.replicas
            raise ValueError(
                f"training.workers ({self.workers}) is no multiple of training.replicas ({self.replicas}), the copies "
                f"of the model that they share out; set workers to {more}, or replicas to 1"
            )
        if self.phases and (self.k != 1 or self.weights is not None):
            raise ValueError("k and weights belong to each phase where phases are given")
        if self.phases and sum(phase.steps for phase in self.phases) != self.steps:
            total = sum(phase.steps for phase in self.phases)
            raise ValueError(f"the phases have {total} steps together, `steps` says {self.steps}")
        for phase in self.all_phases:
            if phase.k & (phase.k - 1):
                raise ValueError(f"k is {phase.k}; it must be a power of two")
        if self.warmup > self.steps:
            raise ValueError(f"warmup ({self.warmup}) is longer than the run ({self.steps} steps)")
        for first, end in self.skip:
            if not 0 <= first < end <= self.steps:
                raise ValueError(f"skip: [{first}, {end}) is not a range of batches 0 to {self.steps}")
        return self

    @property
    def all_phases(self) -> tuple[PhaseConfig, ...]:
        """The phases, the only one included."""
        return self.phases or (PhaseConfig(steps=self.steps, k=self.k, weights=self.weights),)

    @property
    def longest_k(self) -> int:
        """Rows of the longest sample."""
        return max(phase.k for phase in self.all_phases)
