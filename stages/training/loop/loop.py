"""The training loop. Plain PyTorch: alone, under `torchrun --module stages.training RUN.json`, or under Ray.

Every rank goes through the same steps. Between two of them is a boundary, where all agree, by one small reduction on
the host, on the number of targets in the next batch, on the loss of the last one, on whether somebody asked to stop,
and on whether a checkpoint's files are all written. Nothing else waits for the device.
"""

from __future__ import annotations

import gc
import math
import os
import time
from contextlib import closing
from typing import Any

from models.kernels.library import unavailable_reason
from models.sizes import parameters
from stages.store.artifact import scratch_folder
from stages.store.errors import ConfigError, HeadwaterError, StoreError
from stages.store.store import translate_disk_errors
from stages.training.batch_ranges import first_outside
from stages.training.errors import TrainingError
from stages.training.loop.data import Batch
from stages.training.loop.micro_batch import MICRO_BATCH_TOKENS
from stages.training.loop.probe import check_probe
from stages.training.loop.setup import TrainingState, set_up
from stages.training.loop.updater import Computed
from stages.training.metrics.logger import StepMetrics
from stages.training.run import HISTORY, VALIDATIONS, Run
from stages.training.stop import StopFlag


class Loop:
    """One process's part in a run, from its newest checkpoint to the end.

    Args:
        stop: says at each boundary whether somebody asked to stop.

    Raises:
        TrainingError: loss or gradient became infinite or not a number.
        ConfigError, StoreError: a config that does not fit the tokens; damaged tokens or checkpoints.
    """

    def __init__(self, run: Run, stop: StopFlag):
        self.run, self.config, self.stop = run, run.settings, stop
        self.first = int(os.environ.get("RANK", "0")) == 0
        self.state: TrainingState = set_up(run, self._emit)
        self.ranks, self.clock, self.logger = self.state.ranks, self.state.clock, self.state.logger
        self._last: StepMetrics | None = None
        self._first_step_done = False

    files: list[dict[str, Any]]
    """Entries of the files that a finished run has put into the store, on rank 0."""

    @property
    def next_step(self) -> int:
        """The number of the next batch."""
        return self.state.progress.position // self.config.data.global_batch_size

    def __call__(self) -> str:
        """Trains; returns "finished" or "stopped"."""
        self._emit_workers()
        self._refuse_skips_that_were_applied()
        self.clock.start()
        self.logger.start()
        self.state.checkpoints.timetable.start()
        while True:
            step = self._skip()
            with self.clock.phase("data"):
                batch = self.state.data.batch(step) if step is not None else None
            stop = self._boundary(batch)
            if step is None or batch is None:
                break
            if stop:
                self._checkpoint(wait=True)
                self._emit("stopped", durable=True, step=self.next_step)
                return "stopped"
            self._step(step, batch)
        self._checkpoint(wait=True)
        if self.first:
            history = self.logger.history
            self.files = [
                *self.state.checkpoints.weight_files(),
                self.run.publish_file(HISTORY, history.write_steps),
                self.run.publish_file(VALIDATIONS, history.write_validations),
            ]
        return "finished"

    def _emit_workers(self) -> None:
        state, ranks, numerics = self.state, self.ranks, self.state.numerics
        pids = ranks.all_gather_json(os.getpid())
        self._emit(
            "workers",
            world=ranks.world,
            pids=pids,
            device=str(ranks.device),
            precision=numerics.precision,
            matmul_backend=numerics.matmul_backend,
            compiled=state.compiled,
            without_kernels=unavailable_reason() if ranks.device.type == "cpu" else "",
            gflops=round(numerics.matmul_flops_per_second / 1e9, 1),
            parameters=parameters(state.shape),
            trained_parameters=sum(p.numel() for p in state.model.parameters() if p.requires_grad),
            micro_batch_size=self._micro_batch_size(self.next_step),
            activation_checkpointing=state.micro_batches.activation_checkpointing,
            replicas=state.updater.replicas,
        )

    def _refuse_skips_that_were_applied(self) -> None:
        """A batch that is in the weights cannot be skipped any more; a config that asks for it must not seem obeyed."""
        skipped = self.state.progress.skipped_ranges
        for first, end in sorted(self.config.recovery.skip_batches):
            applied = first_outside(skipped, first, min(end, self.next_step))
            if applied is not None:
                raise ConfigError(
                    f"training.recovery.skip_batches: [{first}, {end}) cannot be skipped: batch {applied} was "
                    f"applied before the checkpoint that the run continues from (step {self.next_step}); remove the "
                    f"range, or remove the checkpoints above step {first} in {self.state.checkpoints.places}"
                )

    def _skip(self) -> int | None:
        """Passes over the batches to skip; the number of the next batch, None at the end of the run."""
        progress, step = self.state.progress, self.next_step
        for first, end in sorted(self.config.recovery.skip_batches):
            if first <= step < end:
                progress.skipped.append([step, end])
                self._emit("skipped", durable=True, first=step, end=end)
                step = end
        progress.position = step * self.config.data.global_batch_size
        return step if step < self.config.steps else None

    def _boundary(self, batch: Batch | None) -> bool:
        """What happens between steps; returns whether to stop. `batch` is the next one, None after the last."""
        state, step, checkpoints = self.state, self.next_step, self.state.checkpoints
        done, end = self._last.step + 1 if self._last else 0, batch is None
        due = checkpoints.timetable
        valid, stop, written, uploaded, durable, memory, measure, nats = self.ranks.all_reduce_sum(
            [
                float(batch.valid if batch else 0),
                float(self.stop.set),
                float(checkpoints.finished_writing),
                float(checkpoints.finished_upload),
                float(self.first and due.durable_is_due(done)),
                float(self.first and due.memory_is_due(done)),
                float(self.logger.should_measure_norms(step)),
                float(self._last.computed.nats) if self._last else 0.0,
            ]
        )
        self._valid, self._measure = valid, measure > 0
        if self._last is not None:
            last, self._last = self._last, None
            self._record(last, nats)
        with self.clock.phase("checkpoint"):
            if written == self.ranks.world:
                checkpoints.commit()
            if uploaded == self.ranks.world:
                checkpoints.commit_upload()
        if not done:
            return stop > 0
        if (done % self.config.validation.every_steps == 0 or end) and state.validation.rows:
            self._validate(done)
        if (durable or memory) and not end and not stop:
            with self.clock.phase("checkpoint"):
                self._checkpoint(durable=durable > 0)
        return stop > 0

    def _checkpoint(self, *, durable: bool = True, wait: bool = False) -> None:
        self.state.checkpoints.save(
            self.next_step,
            self.state.encoder(self.run),
            durable=durable,
            wait=wait,
            bits_per_byte=self.logger.history.bits_per_byte,
        )

    def _validate(self, done: int) -> None:
        validation = self.state.validation
        rows = max(1, round(MICRO_BATCH_TOKENS / validation.reader.sequence_length))
        with self.clock.phase("validation"):
            found = validation.bits_per_byte(self.state.model, self.ranks, rows)
        if found is not None and not math.isfinite(found.total):
            raise TrainingError(
                f"training: the held-out bits per byte after step {done} are {found.total}: the weights have diverged; "
                f"lower training.optimizer.lr ({self.state.optimizers.schedule.peak:g})"
            )
        if found is not None:
            self.logger.log_validation(done, found)

    def _step(self, step: int, batch: Batch) -> None:
        """One update, and what it does to the state of the data."""
        state, began = self.state, time.perf_counter()
        computed = state.updater.compute(batch, self._valid, self._micro_batch_size(step))
        if state.probe is not None:
            probe, state.probe = state.probe, None
            loss, norm = self._loss(computed), float(computed.grad_norm)
            check_probe(probe, step, loss, norm, state.numerics.precision, state.checkpoints.places)
        with self.clock.phase("checkpoint"):
            state.checkpoints.wait_copied()
        applied = state.updater.apply(step, self._measure)
        sequences = self.config.data.global_batch_size
        state.progress.update += 1
        state.progress.position += sequences
        length, spans = state.data.sequence_length(step), self.clock.cut()
        self._last = StepMetrics(
            step, applied.lr, sequences, length, self._valid, computed, applied.norms, began, spans
        )

    def _loss(self, computed: Computed) -> float:
        """Nats a target of the batch, over all ranks. Waits for the device."""
        return self.ranks.all_reduce_sum([float(computed.nats)])[0] / max(1.0, self._valid)

    def _micro_batch_size(self, step: int) -> int:
        """Sequences in a forward pass of a batch."""
        return self.state.micro_batches.rows(self.state.data.sequence_length(min(step, self.config.steps - 1)))

    def _record(self, metrics: StepMetrics, nats: float) -> None:
        """Records a step. Refuses a loss or gradient that is not finite, before a checkpoint holds such weights."""
        loss = nats / max(1.0, metrics.valid)
        values = [("loss", loss), ("gradient's norm", float(metrics.computed.grad_norm))]
        if metrics.norms is not None:
            values += [("update's norm", float(metrics.norms.update)), ("weights' norm", float(metrics.norms.weights))]
        for name, value in values:
            if not math.isfinite(value):
                raise TrainingError(
                    f"training: the {name} of step {metrics.step} is {value}; lower training.optimizer.lr "
                    f"({self.state.optimizers.schedule.peak:g}), or skip its documents: "
                    f"--set 'training.recovery.skip_batches=[[{metrics.step}, {metrics.step + 1}]]'"
                )
        self.state.checkpoints.note(metrics.step, loss, float(metrics.computed.grad_norm))
        self.logger.log_step(metrics, loss, self.state.progress.skipped_ranges)
        if not self._first_step_done:
            self._first_step_done = True
            # What exists after a step stays: later collections need not look at it. Nor does one now, which would
            # hold the training up for half a second.
            gc.freeze()
            self._emit_startup()

    def _emit_startup(self) -> None:
        times = self.state.times
        origin = self.run.submitted or times.entered
        reached = {"entered": times.entered, "joined": times.joined, "measured": times.measured, "ready": times.ready}
        reached["first_step"] = time.time()
        seconds: dict[str, Any] = {name: round(at - origin, 3) for name, at in reached.items()}
        self._emit("startup", **seconds)

    def _emit(self, type: str, *, durable: bool = False, **fields: Any) -> None:
        if self.first:
            self.run.events.emit(type, durable=durable, **fields)


def train(run: Run) -> None:
    """One process's part in a run; rank 0 writes the outcome. Errors that a user can fix become an outcome too."""
    rank = int(os.environ.get("RANK", "0"))
    try:
        scratch = scratch_folder(run.store, run.folder)
        with translate_disk_errors("training", scratch), closing(StopFlag(run, poll=rank == 0)) as stop:
            loop = Loop(run, stop)
            try:
                status = loop()
            except BaseException as error:
                loop.state.checkpoints.abandon(commit=not isinstance(error, TrainingError))
                raise
            loop.state.checkpoints.close()
        if rank == 0:
            state, numerics = loop.state, loop.state.numerics
            counts = {"updates": state.progress.update, "parameters": parameters(state.shape)}
            counts["tokens"] = int(state.logger.history.last("tokens"))
            metrics = state.logger.summary() | {"matmul_gflops_per_second": numerics.matmul_flops_per_second / 1e9}
            run.write_outcome(
                status=status,
                step=loop.next_step,
                counts=counts,
                metrics=metrics,
                files=loop.files if status == "finished" else [],
                details={
                    "precision": numerics.precision,
                    "world": state.ranks.world,
                    "skipped": state.progress.skipped,
                },
            )
    except HeadwaterError as error:
        if not _write_failure(run, error):
            raise


def _write_failure(run: Run, error: HeadwaterError) -> bool:
    """Writes a failure as the outcome. False if the store refuses that too, likely of the same cause: the first error
    says more."""
    try:
        run.write_outcome(status="failed", error=str(error), kind=type(error).__name__)
    except StoreError as second:
        error.add_note(f"and the outcome could not be written: {second}")
        return False
    return True
