"""Configuration of a training run: one group a concern, each validated here and nowhere else.

A function takes the group that it needs. What is learned from (model, data, optimizer, schedule, seed, steps) is
hashed; how the run is carried out (parallelism, checkpoints, validation, recovery) is not.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from models.lora import TARGET_MODULES, Lora, TargetModule
from models.sizes import SIZES
from stages.store import Config, runtime_field
from stages.tokens.phase import check_repeat, check_rows_per_sample, check_weights

Weights = Annotated[dict[str, float], AfterValidator(check_weights)]
Repeat = Annotated[float | dict[str, float], AfterValidator(check_repeat)]
RowsPerSample = Annotated[int, Field(gt=0), AfterValidator(check_rows_per_sample)]
_Beta = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[int, Field(gt=0)]
_Steps = Annotated[int, Field(gt=0, strict=True)]


class LoraConfig(Config):
    """Adapters of low rank (LoRA, Hu et al. 2021), in place of a change to all weights. The exported model has them
    merged in; beside it they are as peft's files."""

    rank: int = Field(16, ge=1)
    """Rows and columns that an adapter's two matrices share. The more there is to learn, the higher."""
    alpha: float = Field(32.0, gt=0)
    """An adapter's output is scaled by alpha / rank."""
    target_modules: Annotated[tuple[TargetModule, ...], Field(min_length=1)] = TARGET_MODULES
    """Matrices of each layer that get an adapter. All: adapters of attention alone learn less at an equal number of
    parameters (Schulman et al. 2025, LoRA Without Regret)."""

    @field_validator("target_modules")
    @classmethod
    def _in_one_order(cls, value: tuple[TargetModule, ...]) -> tuple[TargetModule, ...]:
        return tuple(name for name in TARGET_MODULES if name in value)

    @property
    def adapters(self) -> Lora:
        """What the model needs to know."""
        return Lora(self.rank, self.alpha, self.target_modules)


class ModelSelection(Config):
    """The model to train."""

    size: str = "nano"
    """Name of the model's size: 1m, nano, 7m, 11m, 30m, 125m, 350m, 760m, 1.3b, 2.7b, 7b, 13b, 30b, 70b. Not with a
    `base`, which has its own shape."""
    base: str | None = runtime_field(None)
    """A model to go on from, instead of one from scratch: its folder in Hugging Face's form or its GGUF file (absolute
    path or URL), a file or folder of an installed Python package, `package://DISTRIBUTION/PATH`, a hub id, `owner/name`
    or `owner/name@revision`, or a model in the store, `model/DIGEST` (8 digits or more). Its tokenizer is used, too.
    Its content, not its location, is part of the fingerprint: the caller of the stage passes it as input `base`."""
    base_license: str | None = runtime_field(None)
    """Licence of the base (SPDX). Absent: what the front matter of its README.md says, or a GGUF file itself."""
    base_sha256: str | None = runtime_field(None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 (hex) of a base that is one file, such as a GGUF. A file with another content is refused."""
    lora: LoraConfig | None = None
    """Adapters to train on a base whose weights stay as they are. Absent: all weights are trained."""

    @field_validator("size")
    @classmethod
    def _known_size(cls, value: str) -> str:
        if value not in SIZES:
            raise ValueError(f"no model size {value!r}; the sizes are {', '.join(SIZES)}")
        return value

    @model_validator(mode="after")
    def _a_base_has_its_shape(self) -> ModelSelection:
        if self.base is None and self.base_license is not None:
            raise ValueError(
                "training.model.base_license says the licence of a base, and there is no training.model.base"
            )
        if self.base is None and self.base_sha256 is not None:
            raise ValueError(
                "training.model.base_sha256 is the digest of a base's file, and there is no training.model.base"
            )
        if self.base is None and self.lora is not None:
            raise ValueError(
                "training.model.lora adapts a base, and there is no training.model.base; name the model to go on from, "
                "or remove training.model.lora to train all weights from scratch"
            )
        if self.base is not None and self.size != "nano":
            raise ValueError(
                f"training.model.base has its own shape; leave training.model.size ({self.size}) out, or the base"
            )
        return self

    @property
    def adapters(self) -> Lora | None:
        """The adapters that are trained; None: all weights are."""
        return self.lora.adapters if self.lora else None


class PhaseConfig(Config):
    """A part of the run with one mixture and one sample length."""

    steps: int = Field(gt=0)
    """Batches in the phase."""
    rows_per_sample: RowsPerSample = 1
    """Rows of the token stream in a sample: a power of two. Sequences have rows_per_sample x tokens.sequence_length
    tokens."""
    weights: Weights | None = None
    """Share of each source; sources that are not named are not drawn. Absent: by size."""
    repeat: Repeat | None = None
    """Most epochs of each source; a source that has used them up leaves the mixture. Absent: no limit."""


class ReplayConfig(Config):
    """Text of the kind that the base was trained on, mixed in so that it is not forgotten."""

    source: str
    """Name of the source, one of `corpus.sources`."""
    share: float = Field(0.3, gt=0, lt=1)
    """Its share of the tokens, in every phase. From a third to two thirds, domain loss hardly differs, and even a
    hundredth keeps most of what was known (docs/benchmarks.md)."""


class DataConfig(Config):
    """Batches: how large they are and what is drawn into them."""

    global_batch_size: int = Field(32, gt=0)
    """Sequences in a batch, over all workers; a multiple of `streams`."""
    rows_per_sample: RowsPerSample = 1
    """Rows of the token stream in a sample, a power of two, where no phases are given."""
    weights: Weights | None = None
    """Share of each source where no phases are given. Absent: by size."""
    phases: tuple[PhaseConfig, ...] = ()
    """Curriculum: consecutive phases, whose steps add up to `training.steps`. Absent: one phase."""
    replay: ReplayConfig | None = None
    """A source with a share of its own; the others share the rest, by their weights or by size."""
    streams: int = Field(1, gt=0)
    """Independent streams of data; a large cluster takes as many as it has nodes."""
    shuffle_window_shards: int = Field(16, gt=0)
    """Consecutive shards of a source that are shuffled together."""

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.global_batch_size % self.streams:
            low = self.global_batch_size // self.streams * self.streams
            fitting = f"{low} or {low + self.streams}" if low else f"{self.streams}"
            raise ValueError(
                f"training.data.global_batch_size ({self.global_batch_size}) is not a multiple of "
                f"training.data.streams ({self.streams}), and a batch takes equally from each stream; set it to "
                f"{fitting}"
            )
        for weights in (self.weights, *(phase.weights for phase in self.phases)):
            if self.replay is not None and weights is not None and self.replay.source in weights:
                raise ValueError(
                    f"training.data.replay gives {self.replay.source!r} a share of its own; leave it out of the weights"
                )
        if self.phases and (self.rows_per_sample != 1 or self.weights is not None):
            raise ValueError("rows_per_sample and weights belong to each phase where phases are given")
        return self

    def phases_of(self, steps: int) -> tuple[PhaseConfig, ...]:
        """The phases of a run of this many steps; a single one where none are given."""
        single = PhaseConfig(steps=steps, rows_per_sample=self.rows_per_sample, weights=self.weights)
        return self.phases or (single,)

    @property
    def max_rows_per_sample(self) -> int:
        """Rows of the longest sample."""
        return max((phase.rows_per_sample for phase in self.phases), default=self.rows_per_sample)


class OptimizerConfig(Config):
    """The optimizer and its loss terms."""

    name: Literal["adamw", "muon"] = "muon"
    """muon: Muon for the layers' matrices and AdamW for embedding, head and norms. adamw: AdamW for all parameters. The
    learning rate means the same for both. On the sample Muon won at equal time (docs/benchmarks.md). LoRA's adapters
    are trained by AdamW, whatever stands here."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate. Absent: the OLMo ladder's, 0.0047 / 2 x (parameters / 108M)^(-1/3); for a model that goes on
    from a base, 0.6 of it; for LoRA's adapters, 10 times that, less for models that are narrower than 2,048."""
    betas: tuple[_Beta, _Beta] = (0.9, 0.95)
    """Decay rates of Adam's two averages."""
    momentum: _Beta = 0.95
    """Decay rate of Muon's average of gradients."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices; norms, the embedding and LoRA's adapters have none."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a longer one is scaled down to it."""
    z_loss: float = Field(1e-5, ge=0)
    """Weight of the squared log of the softmax's denominator, which keeps logits from drifting."""


class ScheduleConfig(Config):
    """The learning rate over the run, as a multiple of the peak."""

    kind: Literal["wsd", "cosine"] = "wsd"
    """After the warm-up. wsd: stable, then a linear decay; cosine: half a cosine from peak to end."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warm-up."""
    decay_ratio: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls linearly; wsd only."""
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""


class ParallelismConfig(Config):
    """How the work is spread over processes and devices."""

    workers: int = runtime_field(2, ge=0)
    """Processes that share the model. 0: train in the calling process, without Ray."""
    shards_per_replica: int | None = runtime_field(None, ge=1)
    """Processes that one copy of the model is sharded over; `workers` is a multiple of it. Absent: all of them, which
    needs the least memory. On many machines, as many as a machine has GPUs spare the network."""
    micro_batch_size: _Positive | Literal["auto"] = runtime_field("auto")
    """Sequences in a forward pass of each worker. auto: on GPUs as many as the size's preset says, on CPUs about 4,096
    tokens."""
    activation_checkpointing: Literal["auto", "none", "selective", "full"] = runtime_field("auto")
    """What the backward pass computes again instead of keeping it. selective: all but products and attention. full:
    whole layers, in the least memory. auto: none on CPUs, on GPUs as the size's preset says."""
    precision: Literal["auto", "bf16", "fp32"] = runtime_field("auto")
    """Number format of the products; weights and their updates are always fp32. auto: time one product of each at the
    start of the run and keep the faster, for the whole run."""
    compile: Literal["auto", "on", "off"] = runtime_field("auto")
    """Whether PyTorch's compiler makes the layers' kernels. auto: on GPUs; CPUs have loops of our own."""
    device: Literal["auto", "cpu", "cuda"] = runtime_field("auto")
    """Where to compute. auto: on a GPU if there is one."""

    @model_validator(mode="after")
    def _consistent(self) -> ParallelismConfig:
        shards = self.shards_per_replica or 1
        if self.workers % shards:
            more = -(-self.workers // shards) * shards
            raise ValueError(
                f"training.parallelism.workers ({self.workers}) is not a multiple of "
                f"training.parallelism.shards_per_replica ({shards}), the workers that share one copy of the model; "
                f"set workers to {more}, or leave shards_per_replica out"
            )
        return self

    def replicas(self, world_size: int) -> int:
        """Copies of the model that this many processes hold."""
        return world_size // (self.shards_per_replica or world_size)


class CheckpointConfig(Config):
    """When checkpoints are written, and which stay."""

    every_steps: _Steps | Literal["auto"] = runtime_field("auto")
    """Steps between checkpoints on disk and in the store. auto: derived during the run from what a checkpoint costs and
    from the mean time between failures, so that both together cost least; at least every half hour."""
    memory_every_steps: Annotated[int, Field(ge=0, strict=True)] | Literal["auto"] = runtime_field("auto")
    """Steps between checkpoints in the machine's memory (`/dev/shm`), from which a run resumes after its processes were
    lost. auto: as often as half a percent of the time allows. 0: none."""
    mean_hours_between_failures: float | None = runtime_field(None, gt=0, lt=1e6)
    """Of the whole run. Absent: 7.9 hours for 1,024 devices (Kokolis et al. 2024), more for fewer."""
    keep: int = runtime_field(2, ge=1)
    """Newest checkpoints that stay."""
    keep_every_steps: int = runtime_field(0, ge=0)
    """Checkpoints at multiples of this many steps stay too. 0: none."""
    keep_best: bool = runtime_field(False)
    """Whether the checkpoint with the fewest bits per byte stays too."""


class ValidationConfig(Config):
    """Validations on held-out documents during the run; there is always one at the end."""

    every_steps: int = runtime_field(100, gt=0)
    """Steps between validations."""
    rows: int = runtime_field(64, ge=0)
    """Held-out rows in a validation, spread evenly over them. 0: all."""


class RecoveryConfig(Config):
    """What happens after a failure, and when the run is stopped."""

    max_failures: int = runtime_field(3, ge=0)
    """Times that a lost worker is replaced before the run gives up."""
    stop_grace_seconds: float = runtime_field(60.0, ge=0)
    """Seconds that workers get to write a checkpoint when the run is stopped."""
    skip_batches: tuple[tuple[int, int], ...] = runtime_field(())
    """Batches to skip, as ranges [first, end) of batch numbers: data that made the loss diverge. Batches that the
    checkpoint holds already cannot be skipped; a finished run needs a new one (`--force-new-run`)."""


class TrainingConfig(Config):
    """Pretraining of a decoder on a token stream."""

    steps: int = Field(200, gt=0)
    """Batches to train on."""
    seed: int = 0
    """Decides the initial weights and the order of the data."""
    model: ModelSelection = ModelSelection()
    """Which model is trained."""
    data: DataConfig = DataConfig()
    """Batch size, mixture, curriculum and shuffling."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer, learning rate, clipping and z-loss."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Warm-up and decay of the learning rate."""
    parallelism: ParallelismConfig = ParallelismConfig()
    """Workers, sharding, micro-batches, number format and device."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often the state is saved, and what stays."""
    validation: ValidationConfig = ValidationConfig()
    """How often held-out documents are looked at, and how many."""
    recovery: RecoveryConfig = RecoveryConfig()
    """Retries, the grace period of a stop, and batches to skip."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainingConfig:
        micro, batch = self.parallelism.micro_batch_size, self.data.global_batch_size
        if micro != "auto" and micro > batch:
            raise ValueError(
                f"training.parallelism.micro_batch_size ({micro}) is more than the whole "
                f"training.data.global_batch_size ({batch}); it counts sequences, not tokens: leave it at auto"
            )
        total = sum(phase.steps for phase in self.phases)
        if total != self.steps:
            raise ValueError(f"training.data.phases have {total} steps together, training.steps is {self.steps}")
        warmup = self.schedule.warmup_steps
        if warmup > self.steps:
            raise ValueError(
                f"training.schedule.warmup_steps ({warmup}) is more than training.steps ({self.steps}): the warm-up "
                "would be longer than the run"
            )
        for first, end in self.recovery.skip_batches:
            if not 0 <= first < end <= self.steps:
                raise ValueError(
                    f"training.recovery.skip_batches: [{first}, {end}) is not a range of batches 0 to {self.steps}"
                )
        return self

    @property
    def phases(self) -> tuple[PhaseConfig, ...]:
        """The phases, at least one."""
        return self.data.phases_of(self.steps)
