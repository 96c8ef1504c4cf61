"""The training stage: tokens in; weights, their config, and the history of every step and validation out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from stages.store import Artifact, ArtifactWriter, ConfigError, InputError, Stage, StoreError
from stages.store import errors as artifact_errors
from stages.store.manifest import parse_files
from stages.training.batch_ranges import first_outside
from stages.training.checkpoint.places import forget_memory
from stages.training.config import TrainingConfig
from stages.training.errors import StoppedError, TrainingError
from stages.training.model import config_of, generation_config_of
from stages.training.preflight.checks import check_base_tokenizer, check_ranks, check_tokenizer
from stages.training.preflight.plan import PLAN, plan_of
from stages.training.run import CONFIG, GENERATION_CONFIG, OUTCOME, Run
from stages.training.stop import clear_stop


def build(config: TrainingConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Trains a model on `inputs["tokens"]`, from scratch or from the weights of `inputs["base"]`, resuming from the
    run's newest checkpoint.

    With `workers` 0 it trains in this process; else on that many Ray workers, which are restarted from the last
    checkpoint when one is lost. An exception that reaches this process (a cancel) stops the workers at a step
    boundary, with a checkpoint, before it is raised again.

    Raises:
        StoppedError: the run was asked to stop; it resumes when started again.
        TrainingError: it cannot continue: the loss is not finite, or workers were lost too often.
        ConfigError: a config that does not fit the tokens.
        InputError: tokens that are not of the base's tokenizer, or adapters without a base.
        StoreError: a store that is full or away, or damaged data.
    """
    tokens: Artifact = inputs["tokens"]
    base: Artifact | None = inputs.get("base")
    run = Run(
        url=writer.store.url,
        folder=writer.folder,
        tokens_url=tokens.store.url,
        tokens=tokens.folder,
        tokens_digest=tokens.digest,
        config=config.model_dump(mode="json"),
        submitted=time.time(),
        base_url=base.store.url if base else "",
        base=base.folder if base else "",
        base_digest=base.digest if base else "",
    )
    # Refused here, before any worker starts: data that cannot be drawn, batches that cannot be shared out.
    check_ranks(config.data, config.parallelism, max(1, config.parallelism.workers))
    check_tokenizer(tokens)
    if base is not None:
        check_base_tokenizer(tokens, base)
    elif config.model.lora is not None:
        raise InputError("training: training.model.lora adapts a base; give the model to go on from as input `base`")
    described = config_of(config, tokens, base)
    plan = plan_of(tokens, config)
    named = {"base": base.folder} if base else {}
    writer.events.emit(
        PLAN, durable=True, tokens=tokens.folder, digest=tokens.digest, config=run.config, plan=plan, **named
    )
    clear_stop(run)
    run.clear_outcome()
    try:
        if config.parallelism.workers == 0:
            from stages.training.loop.loop import train

            train(run)
        else:
            from stages.training.cluster.driver import train_on_ray

            train_on_ray(run)
    finally:  # however it ended; workers that were killed could not do it
        forget_memory(run.store, run.checkpoints)
    outcome = run.outcome()
    if outcome is None:
        raise TrainingError(f"training: the workers ended without an outcome; see the events in {run.where}")
    if outcome["status"] == "stopped":
        raise StoppedError(
            f"training was stopped after step {outcome['step']} of {config.steps}, with a checkpoint in "
            f"{run.where}/checkpoints; start it again to resume"
        )
    if outcome["status"] == "failed":
        raise _error(outcome["kind"])(outcome["error"])
    for entry in parse_files(outcome, f"{run.where}/{OUTCOME}"):
        writer.register_existing(entry)
    for name, content in ((CONFIG, described), (GENERATION_CONFIG, generation_config_of(described, base))):
        writer.put(name, json.dumps(content, indent=1).encode() + b"\n")
    writer.counts.update(outcome["counts"])
    writer.metrics.update(outcome["metrics"])
    writer.details.update(outcome["details"])


def _error(kind: str) -> type[artifact_errors.HeadwaterError]:
    known = {cls.__name__: cls for cls in (ConfigError, StoreError, TrainingError, InputError)}
    return known.get(kind, TrainingError)


def check_skipped(config: TrainingConfig, run: Artifact) -> None:
    """Refuses to take a finished run for one that skips batches which it trained on.

    Raises:
        ConfigError: which batches, and how to get a run without them.
    """
    skipped = run.manifest.details.get("skipped", [])
    for first, end in config.recovery.skip_batches:
        trained = first_outside(skipped, first, end)
        if trained is not None:
            raise ConfigError(
                f"training.recovery.skip_batches: the finished run {run.id} was trained on batch {trained} of "
                f"[{first}, {end}); start a new run without it: --force-new-run"
            )


training = Stage("training", 5, build, separate_runs=True, check_cached=check_skipped)
