"""What a run needs before its first step: data, model, optimizers and metrics, restored from a checkpoint if there is
one. Every rank calls it with the same arguments."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from models import matmul
from models.decoder import Decoder
from models.lora import add_adapters
from models.sizes import ModelConfig
from stages.memory import available_memory
from stages.store.events import Emit
from stages.training.checkpoint.checkpointer import Checkpointer
from stages.training.checkpoint.format import WEIGHT_PREFIX, Probe
from stages.training.checkpoint.restoring import Found
from stages.training.config import TrainingConfig
from stages.training.loop.data import DataState, TrainingData
from stages.training.loop.micro_batch import MicroBatches, gpu_memory
from stages.training.loop.saved_state import SavedState, encoder, reader, set_rng_state
from stages.training.loop.updater import Updater
from stages.training.loop.validation import Validation
from stages.training.metrics.logger import MetricsLogger
from stages.training.metrics.phase_clock import PhaseClock
from stages.training.model import base_folder, model_of
from stages.training.optim.optimizers import Optimizers, build_optimizers
from stages.training.optim.schedule import LearningRateSchedule, default_peak_lr
from stages.training.parallelism.activation_checkpointing import checkpoint_layers
from stages.training.parallelism.pretrained import fill_pretrained
from stages.training.parallelism.ranks import Ranks, init_distributed, parallelize, set_values
from stages.training.preflight.checks import check_device, check_ranks
from stages.training.preflight.memory_check import Demand, check_memory
from stages.training.preflight.rank_consistency import Process, check_rank_consistency, describe_process
from stages.training.run import Run
from stages.training.runtime.compiling import compile_layers, wants_compiler
from stages.training.runtime.precision import FORMATS, faster_format, matmul_flops_per_second, peak_rate


@dataclass
class StartupTimes:
    """Times of day at which a process had come so far, in seconds since 1970."""

    entered: float
    joined: float = 0.0
    measured: float = 0.0
    ready: float = 0.0


@dataclass
class Numerics:
    """What is measured or chosen once for a run, and kept in its checkpoints."""

    precision: str
    """Number format of the products: a key of `FORMATS`."""
    matmul_backend: str
    """How matrix products are computed on this kind of processor; see `models.matmul`."""
    matmul_flops_per_second: float
    """Of all ranks together."""

    @property
    def dtype(self) -> torch.dtype:
        return FORMATS[self.precision]


@dataclass
class TrainingState:
    """Everything that the loop works with on this rank."""

    ranks: Ranks
    data: TrainingData
    validation: Validation
    checkpoints: Checkpointer
    numerics: Numerics
    shape: ModelConfig
    model: Decoder
    compiled: bool
    micro_batches: MicroBatches
    optimizers: Optimizers
    updater: Updater
    logger: MetricsLogger
    clock: PhaseClock
    times: StartupTimes
    progress: DataState
    """Where the run is in its data."""
    probe: Probe | None = None
    """What the first batch after the checkpoint gave before, when the run was restored from one."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: the weights that are trained and the optimizers' averages; the tensors in use, not
        copies. What stays as it is in the base is read from there again."""
        trained = ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)
        weights = {f"{WEIGHT_PREFIX}{name}": p.detach() for name, p in trained}
        return weights | self.optimizers.state_tensors(self.model)

    def encoder(self, run: Run) -> Callable[[], dict[str, Any]]:
        """Takes down what a checkpoint holds beside tensors; see `saved_state.encoder`."""
        numerics = self.numerics
        return encoder(run, self.progress, numerics.precision, numerics.matmul_backend, self.logger.history)


def set_up(run: Run, emit: Emit) -> TrainingState:
    """Joins the other ranks, checks what can be checked, builds model and optimizers, and loads the newest checkpoint.

    Args:
        emit: appends an event to the run's log, on rank 0; does nothing on others.

    Raises:
        ConfigError, StoreError: a config that does not fit tokens or machine; damaged tokens or checkpoints.
    """
    config, times = run.settings, StartupTimes(time.time())
    parallelism = config.parallelism
    check_device(parallelism.device)
    ranks = init_distributed(parallelism.device)
    check_ranks(config.data, parallelism, ranks.world)
    if not ranks.alone:
        described = ranks.all_gather_json(asdict(describe_process(ranks.device.type == "cuda")))
        check_rank_consistency([Process(**values) for values in described])
    if ranks.device.type == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.local_world))
    tokens = run.tokens_folder()
    ahead = ranks.device.type == "cuda"
    data = TrainingData(tokens, run.tokens_digest, config, ranks.rank, ranks.world, ahead=ahead)
    validation = Validation(tokens, config.validation.rows)
    checkpoints = Checkpointer(run.store, run.checkpoints, ranks, config.checkpoint, emit, reader(run))
    clock = PhaseClock(ranks.device)
    times.joined = time.time()

    found = checkpoints.finder.next()
    numerics = _choose_numerics(parallelism.precision, ranks, found.state[0] if found else None)
    times.measured = time.time()

    longest = config.data.max_rows_per_sample * data.reader.sequence_length
    shape, _ = model_of(config, vars(data.reader), run.base_artifact)
    lora = config.model.adapters
    card, replicas = gpu_memory(ranks), parallelism.replicas(ranks.world)
    micro_batches = MicroBatches(parallelism, shape, ranks.world, numerics.dtype, data.max_rows, longest, card, lora)
    base = shape if run.base else None
    check_memory(*_memory_demand(config, ranks, data, micro_batches, longest, card, base))
    with torch.device("meta"):
        model = Decoder(shape, data.reader.eos_id, numerics.dtype)
        if lora is not None:
            add_adapters(model, lora)
    model = parallelize(model, ranks, None if found or run.base else config.seed, replicas)
    if run.base and (lora is not None or not found):
        fill_pretrained(model, ranks, base_folder(run.base_artifact), config.seed)
    checkpoint_layers(model, micro_batches.activation_checkpointing)
    compiled = wants_compiler(parallelism.compile, ranks.device)
    if compiled:
        compile_layers(model)
    default_lr = default_peak_lr(shape, bool(run.base), lora is not None)
    schedule = LearningRateSchedule(config.schedule, config.optimizer.lr or default_lr, config.steps)
    optimizers = build_optimizers(model, config.optimizer, schedule, numerics.dtype)
    updater = Updater(model, optimizers, config.optimizer, ranks, clock, data.max_rows, replicas)
    peak = peak_rate(ranks.device, numerics.precision)
    flops_per_second = peak * ranks.world if peak else numerics.matmul_flops_per_second
    logger = MetricsLogger(config.steps, shape, data, flops_per_second, emit, ranks.rank == 0, lora)
    state = TrainingState(
        ranks,
        data,
        validation,
        checkpoints,
        numerics,
        shape,
        model,
        compiled,
        micro_batches,
        optimizers,
        updater,
        logger,
        clock,
        times,
        DataState(),
    )
    _restore(state, found, run, emit)
    times.ready = time.time()
    return state


def _choose_numerics(precision: str, ranks: Ranks, saved: SavedState | None) -> Numerics:
    """A checkpoint's choice where there is one, so that a resumed run computes as before; else what is faster here."""
    wanted = precision if precision != "auto" else faster_format(ranks.device)
    precision = ranks.broadcast_json(saved.precision if saved else wanted)
    dtype = FORMATS[precision]
    kept = saved.matmul_backend if saved else ""
    backend = ranks.broadcast_json(kept or matmul.faster_backend(ranks.device, dtype))
    matmul.set_backend(backend)
    rate = ranks.all_reduce_sum([matmul_flops_per_second(dtype, ranks.device, repeats=2)])[0]
    return Numerics(precision, backend, rate)


def _memory_demand(
    config: TrainingConfig,
    ranks: Ranks,
    data: TrainingData,
    micro_batches: MicroBatches,
    longest: int,
    card: int | None,
    base: ModelConfig | None,
) -> tuple[Demand, int]:
    """What the run needs, and the bytes available to it: all ranks report theirs before any of them allocates."""
    demand = Demand(
        size=config.model.size,
        vocabulary_size=data.reader.vocabulary_size,
        sequence_length=longest,
        micro_batch_size=min(micro_batches.rows(longest), data.max_rows),
        checkpointing=micro_batches.activation_checkpointing,
        bytes_per_activation=micro_batches.dtype.itemsize,
        workers=ranks.world,
        replicas=config.parallelism.replicas(ranks.world),
        sharing=ranks.local_world if card is None else 1,
        host=card is None,
        base=base,
        lora=config.model.adapters,
    )
    return demand, card if card is not None else min(ranks.all_gather_json(available_memory()))


def _restore(state: TrainingState, found: Found | None, run: Run, emit: Emit) -> None:
    """Loads the newest checkpoint that is whole, or starts from the seed where there is none."""
    config, ranks, finder = run.settings, state.ranks, state.checkpoints.finder
    began, tried = time.monotonic(), found is not None
    while found is not None and not finder.load(found, state.tensors()):
        found = finder.next()
    if finder.refusals:
        refused, reasons = (sorted({getattr(one, name) for one in finder.refusals}) for name in ("file", "reason"))
        emit("checkpoint_refused", durable=True, files=refused, reasons=reasons)
    if found is None:
        finder.refuse_all()
        if tried:  # what was in memory could not be used, and has been read into the tensors
            if run.base:
                fill_pretrained(state.model, ranks, base_folder(run.base_artifact), config.seed)
            else:
                set_values(state.model, ranks, config.seed)
            state.optimizers.reset(state.model)
    state.checkpoints.prepare(state.tensors(), found)
    if found is not None:
        saved, state.logger.history = found.state
        state.progress = saved.data_state()
        state.optimizers.set_updates(state.progress.update)
        set_rng_state(saved.rng)
        state.probe = found.candidate.manifest.probe
        emit(
            "restart",
            durable=True,
            step=found.step,
            checkpoint=found.candidate.name,
            tier=found.candidate.tier,
            world=ranks.world,
            seconds=round(time.monotonic() - began, 3),
        )
        return
    torch.manual_seed(config.seed)
    if ranks.rank == 0 and any(event["type"] == "workers" for event in run.events.read()[0]):
        emit("restart", durable=True, step=0, checkpoint=None, world=ranks.world)
