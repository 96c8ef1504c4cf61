"""The training loop. Plain PyTorch: alone, under `torchrun --module stages.training RUN.json`, or under Ray.

Every rank goes through the same steps. Between two of them is a boundary, where all agree, by one small reduction on
the host, on the number of targets in the next batch, on the loss of the last one, on whether somebody asked to stop,
and on whether a checkpoint's files are all written. Nothing else waits for the device.
"""

from __future__ import annotations

import gc
import json
import math
import os
import time
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from models import matmul as products
from models.decoder import Decoder
from models.huggingface import save_weights
from models.kernels.library import why_not
from models.sizes import parameters, sized
from stages.memory import available_memory
from stages.store.artifact import scratch_folder
from stages.store.errors import HeadwaterError, StoreError
from stages.store.store import disk_trouble_told
from stages.training.checkpoint.checkpointer import STATE, Checkpointer, rng_state, set_rng_state
from stages.training.errors import TrainingError
from stages.training.loop.data import Batch, DataState, TrainingData
from stages.training.loop.micro_batch import MICRO_BATCH_TOKENS, MicroBatches, gpu_memory
from stages.training.loop.updater import Updater
from stages.training.loop.validation import Validation
from stages.training.metrics.history import History
from stages.training.metrics.logger import Step, Watch
from stages.training.metrics.phase_clock import PhaseClock
from stages.training.optim.optimizer import build_optimizer, moments, set_updates
from stages.training.optim.schedule import factor, peak_learning_rate
from stages.training.parallelism.activation_checkpointing import checkpoint_layers
from stages.training.parallelism.ranks import join, place
from stages.training.parallelism.sharded import whole_weights
from stages.training.preflight.checks import OF, check_checkpoint, check_device, check_ranks
from stages.training.preflight.memory_check import Demand, check_fits
from stages.training.preflight.rank_consistency import check_alike, this_process
from stages.training.run import HISTORY, VALIDATIONS, WEIGHTS, Run
from stages.training.runtime.compiling import compile_layers, wants_compiler
from stages.training.runtime.precision import FORMATS, faster_format, peak_rate, product_rate
from stages.training.stop import StopFlag


class Loop:
    """One process's part in a run, from its last whole checkpoint to the end.

    Args:
        stop: says at each boundary whether somebody asked to stop.

    Raises:
        TrainingError: loss or gradient became infinite or not a number.
        ConfigError, StoreError: a config that does not fit the tokens; damaged tokens or checkpoints.
    """

    def __init__(self, run: Run, stop: StopFlag):
        self.run, self.config, self.stop = run, run.settings(), stop
        self.entered = time.time()
        config = self.config
        check_device(config.device)
        self.ranks = ranks = join(config.device)
        check_ranks(config, ranks.world)
        if not ranks.alone:
            check_alike(ranks.gather(this_process(ranks.device.type == "cuda")))
        if ranks.device.type == "cpu":
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.local_world))
        self.first = ranks.rank == 0
        tokens = run.tokens_folder()
        ahead = ranks.device.type == "cuda"
        self.data = TrainingData(tokens, run.tokens_digest, config, ranks.rank, ranks.world, ahead=ahead)
        self.validation = Validation(tokens, config.validation_rows)
        self.checkpoints = Checkpointer(run.store, f"{run.folder}/checkpoints", ranks, self._committed)
        self.state = DataState()
        self.clock = PhaseClock(ranks.device)
        self._last: Step | None = None
        self._started = False
        self.joined = time.time()
        self._build()
        self.ready = time.time()

    files: list[dict[str, Any]]
    """What a finished run has left in the store, on rank 0."""

    def _build(self) -> None:
        """Model and optimizer, from the newest whole checkpoint if there is one."""
        config, ranks, reader = self.config, self.ranks, self.data.reader
        path, refused = self.checkpoints.newest()
        saved = json.loads((path / STATE).read_bytes()) if path else {}
        if path:
            check_checkpoint(saved, self.run, self.run.store.where(f"{self.run.folder}/checkpoints/{path.name}"))
        wanted = config.precision if config.precision != "auto" else faster_format(ranks.device)
        self.precision = ranks.from_first(saved.get("precision", wanted))
        dtype = FORMATS[self.precision]
        self.products = ranks.from_first(saved.get("products") or products.faster_products(ranks.device, dtype))
        products.use(self.products)
        self.product_rate = ranks.sum([product_rate(dtype, ranks.device, repeats=2)])[0]
        self.rated = time.time()
        longest = config.longest_k * reader.sequence_length
        self.shape = sized(config.size, reader.vocabulary_size, longest)
        rows, card = self.data.most_rows, gpu_memory(ranks)
        self.micro_batches = MicroBatches(config, self.shape, ranks.world, dtype, rows, longest, card)
        self._check_memory(longest, card)
        with torch.device("meta"):
            model = Decoder(self.shape, reader.eos_id, dtype)
        self.model = place(model, ranks, config.seed, config.replicas)
        checkpoint_layers(self.model, self.micro_batches.activation_checkpointing)
        self.compiled = wants_compiler(config.compile, ranks.device)
        if self.compiled:
            compile_layers(self.model)
        self.peak = peak_learning_rate(config, self.shape)
        self.optimizer = build_optimizer(self.model, config, self.peak, dtype)
        self.updater = Updater(self.model, self.optimizer, config, ranks, self.clock, rows)
        peak = peak_rate(ranks.device, self.precision)
        flops_rate = peak * ranks.world if peak else self.product_rate
        self.watch = Watch(config, self.shape, self.data, flops_rate, self._emit, self.first)
        if refused:
            self._emit("checkpoint_refused", durable=True, files=refused)
        if path:
            state = self.checkpoints.load(path, self._tensors())
            self.state = DataState(**state["data"])
            self.watch.history = History.load(state["history"])
            set_updates(self.optimizer, self.state.update)
            set_rng_state(state["rng"])
            self.checkpoints.forget_fetched()
            self._emit("restart", durable=True, step=self._next_number(), checkpoint=path.name, world=ranks.world)
        else:
            torch.manual_seed(config.seed)
            if self.first and any(event["type"] == "workers" for event in self.run.events.read()[0]):
                self._emit("restart", durable=True, step=0, checkpoint=None, world=ranks.world)

    def _check_memory(self, longest: int, card: int | None) -> None:
        """Refuses a model that cannot fit. All ranks have told what they have before any of them takes of it."""
        config, ranks, batches = self.config, self.ranks, self.micro_batches
        demand = Demand(
            size=config.size,
            vocabulary_size=self.data.reader.vocabulary_size,
            sequence_length=longest,
            micro_batch=min(batches.rows(longest), self.data.most_rows),
            checkpointing=batches.activation_checkpointing,
            bytes_per_activation=batches.dtype.itemsize,
            workers=ranks.world,
            replicas=config.replicas,
            sharing=ranks.local_world if card is None else 1,
            host=card is None,
        )
        check_fits(demand, card if card is not None else min(ranks.gather(available_memory())))

    def _tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: weights and the optimizers' averages; the tensors in use, not copies."""
        weights = {f"weight.{name}": p.detach() for name, p in self.model.named_parameters()}
        return weights | moments(self.model, self.optimizer)

    def _saved_state(self) -> dict[str, Any]:
        return {
            OF: self.run.identity(),
            "data": self.state.as_dict(),
            "precision": self.precision,
            "products": self.products,
            "rng": rng_state(),
            "history": self.watch.history.saved(),
        }

    def _next_number(self) -> int:
        return self.state.position // self.config.batch

    def __call__(self) -> str:
        """Trains; returns "finished" or "stopped"."""
        pids = self.ranks.gather(os.getpid())
        self._emit(
            "workers",
            world=self.ranks.world,
            pids=pids,
            device=str(self.ranks.device),
            precision=self.precision,
            products=self.products,
            compiled=self.compiled,
            without_kernels=why_not() if self.ranks.device.type == "cpu" else "",
            gflops=round(self.product_rate / 1e9, 1),
            parameters=parameters(self.shape),
            micro_batch=self._micro_batch(self._next_number()),
            activation_checkpointing=self.micro_batches.activation_checkpointing,
            replicas=self.config.replicas,
        )
        self.clock.start()
        self.watch.start()
        while True:
            number = self._pass_over_skipped()
            with self.clock.phase("data"):
                batch = self.data.batch(number) if number is not None else None
            stop = self._boundary(batch)
            if number is None or batch is None:
                break
            if stop:
                self.checkpoints.save(self._next_number(), self._tensors(), self._saved_state(), wait=True)
                self._emit("stopped", durable=True, step=self._next_number())
                return "stopped"
            self._step(number, batch)
        self.checkpoints.save(self._next_number(), self._tensors(), self._saved_state(), wait=True)
        weights = whole_weights(self.model, keep=self.first)
        if self.first:
            self.files = [
                self.run.leave(WEIGHTS, lambda path: save_weights(weights, path)),
                self.run.leave(HISTORY, self.watch.history.write_steps),
                self.run.leave(VALIDATIONS, self.watch.history.write_validations),
            ]
        return "finished"

    def _pass_over_skipped(self) -> int | None:
        """The number of the next batch that is not left out; None at the end of the run."""
        number = self._next_number()
        for first, end in sorted(self.config.skip):
            if first <= number < end:
                self.state.skipped.append([number, end])
                self._emit("skipped", durable=True, first=number, end=end)
                number = end
        self.state.position = number * self.config.batch
        return number if number < self.config.steps else None

    def _boundary(self, batch: Batch | None) -> bool:
        """What happens between steps; returns whether to stop. `batch` is the next one, None after the last."""
        number = self._next_number()
        valid, stop, written, measure, nats = self.ranks.sum(
            [
                float(batch.valid if batch else 0),
                float(self.stop.set),
                float(self.checkpoints.finished_writing),
                float(self.watch.wants_norms(number)),
                float(self._last.computed.nats) if self._last else 0.0,
            ]
        )
        self._valid, self._measure = valid, measure > 0
        if written == self.ranks.world:
            with self.clock.phase("checkpoint"):
                self.checkpoints.commit()
        if self._last is None:
            return stop > 0
        last, self._last = self._last, None
        self._record(last, nats)
        done, end = last.number + 1, batch is None
        if (done % self.config.validate_every == 0 or end) and self.validation.rows:
            self._validate(done)
        if done % self.config.checkpoint_every == 0 and not end:
            with self.clock.phase("checkpoint"):
                self.checkpoints.save(number, self._tensors(), self._saved_state())
        return stop > 0

    def _validate(self, done: int) -> None:
        rows = max(1, round(MICRO_BATCH_TOKENS / self.validation.reader.sequence_length))
        with self.clock.phase("validation"):
            found = self.validation.bits_per_byte(self.model, self.ranks, rows)
        if found is not None:
            self.watch.validated(done, found)

    def _step(self, number: int, batch: Batch) -> None:
        """One update, and what it does to the state of the data."""
        began, config = time.perf_counter(), self.config
        computed = self.updater.compute(batch, self._valid, self._micro_batch(number))
        learning_rate = self.peak * factor(config, number)
        norms = self.updater.apply(learning_rate, self._measure)
        self.state.update += 1
        self.state.position += config.batch
        length, phases = self.data.sequence_length(number), self.clock.cut()
        self._last = Step(number, learning_rate, config.batch, length, self._valid, computed, norms, began, phases)

    def _micro_batch(self, number: int) -> int:
        """Sequences a forward pass of a batch."""
        return self.micro_batches.rows(self.data.sequence_length(min(number, self.config.steps - 1)))

    def _record(self, step: Step, nats: float) -> None:
        """Keeps and tells a step's loss; refuses it, or a gradient, that is no number before a checkpoint has such
        weights in it."""
        loss = nats / max(1.0, step.valid)
        for what, value in (("loss", loss), ("gradient's norm", float(step.computed.norm))):
            if not math.isfinite(value):
                raise TrainingError(
                    f"training: the {what} of step {step.number} is {value}; lower learning_rate ({self.peak:g}), or "
                    f"leave its documents out with skip: [[{step.number}, {step.number + 1}]]"
                )
        self.watch.record(step, loss, self.state.left_out)
        if not self._started:
            self._started = True
            # What is there after a step stays: later collections need not look at it. Nor does one now, which would
            # hold the training up for half a second.
            gc.freeze()
            origin = self.run.submitted or self.entered
            parts = {"entered": self.entered, "joined": self.joined, "rated": self.rated, "ready": self.ready}
            parts["first_step"] = time.time()
            seconds: dict[str, Any] = {name: round(at - origin, 3) for name, at in parts.items()}
            self._emit("startup", **seconds)

    def _committed(self, step: int, seconds: float, stall: float) -> None:
        self._emit("checkpoint", durable=True, step=step, seconds=round(seconds, 3), stall_seconds=round(stall, 3))

    def _emit(self, type: str, *, durable: bool = False, **fields: Any) -> None:
        if self.first:
            self.run.events.emit(type, durable=durable, **fields)


def train(run: Run) -> None:
    """One process's part in a run; rank 0 leaves the outcome. Errors that a user can mend become an outcome too."""
    rank = int(os.environ.get("RANK", "0"))
    try:
        scratch = scratch_folder(run.store, run.folder)
        with disk_trouble_told("training", scratch), closing(StopFlag(run, watch=rank == 0)) as stop:
            loop = Loop(run, stop)
            try:
                status = loop()
            except BaseException:
                loop.checkpoints.abandon()
                raise
        if rank == 0:
            counts = {"updates": loop.state.update, "parameters": parameters(loop.shape)}
            counts["tokens"] = int(loop.watch.history.last("tokens"))
            run.write_outcome(
                status=status,
                step=loop.state.position // loop.config.batch,
                counts=counts,
                metrics=loop.watch.metrics() | {"product_gflops": loop.product_rate / 1e9},
                files=loop.files if status == "finished" else [],
                details={"precision": loop.precision, "world": loop.ranks.world, "skipped": loop.state.skipped},
            )
    except HeadwaterError as error:
        if not _left_behind(run, error):
            raise


def _left_behind(run: Run, error: HeadwaterError) -> bool:
    """Leaves a failure as the outcome. False if the store refuses that too, likely of the same cause: what came first
    says more."""
    try:
        run.write_outcome(status="failed", error=str(error), kind=type(error).__name__)
    except StoreError as trouble:
        error.add_note(f"and the outcome could not be written: {trouble}")
        return False
    return True
