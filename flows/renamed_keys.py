"""Recipe keys of earlier versions, and what each is called now: an old key is refused with its new name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.config import RENAMED_SETTINGS

RENAMED_KEYS = {
    "model": "export",
    "sample.kind": "sample.domain",
    "corpus.maximum_bad_fraction": "corpus.maximum_unreadable_fraction",
    "corpus.dedup.threshold": "corpus.dedup.similarity_threshold",
    "corpus.dedup.ngram": "corpus.dedup.ngram_size",
    "corpus.decontamination.ngram": "corpus.decontamination.ngram_size",
    "tokens.vocabulary": "tokens.vocab_size",
    "tokens.sample_bytes": "tokens.tokenizer_training_bytes",
    "training.size": "training.model.size",
    "training.batch": "training.data.global_batch_size",
    "training.k": "training.data.rows_per_sample",
    "training.weights": "training.data.weights",
    "training.phases": "training.data.phases",
    "training.data.phases.k": "training.data.phases.rows_per_sample",
    "training.lanes": "training.data.streams",
    "training.window": "training.data.shuffle_window_shards",
    "training.learning_rate": "training.optimizer.lr",
    "training.betas": "training.optimizer.betas",
    "training.momentum": "training.optimizer.momentum",
    "training.weight_decay": "training.optimizer.weight_decay",
    "training.grad_clip": "training.optimizer.grad_clip",
    "training.z_loss": "training.optimizer.z_loss",
    "training.warmup": "training.schedule.warmup_steps",
    "training.decay": "training.schedule.decay_ratio",
    "training.final_learning_rate": "training.schedule.min_lr_ratio",
    "training.workers": "training.parallelism.workers",
    "training.replicas": "training.parallelism.shards_per_replica (workers / replicas)",
    "training.micro_batch": "training.parallelism.micro_batch_size",
    "training.activation_checkpointing": "training.parallelism.activation_checkpointing",
    "training.precision": "training.parallelism.precision",
    "training.compile": "training.parallelism.compile",
    "training.device": "training.parallelism.device",
    "training.checkpoint_every": "training.checkpoint.every_steps",
    "training.validate_every": "training.validation.every_steps",
    "training.validation_rows": "training.validation.rows",
    "training.max_failures": "training.recovery.max_failures",
    "training.stop_grace": "training.recovery.stop_grace_seconds",
    "training.skip": "training.recovery.skip_batches",
    **{
        f"serving.{group}.{old}": f"serving.{group}.{new}"
        for group, names in RENAMED_SETTINGS.items()
        for old, new in names.items()
    },
}
"""By the dotted name; elements of lists have no number in it."""

GROUP_NOW = {
    "training.optimizer": "training.optimizer.name",
    "training.schedule": "training.schedule.kind",
}
"""Keys that were values and are groups now, and where the value stands."""


def upgrade_training_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A training config in today's groups, from one that a run of an earlier version has recorded; others as they are.

    Such a run is not resumed, but its steps and documents stay traceable.
    """
    if "batch" not in config:
        return dict(config)
    values = dict(config)
    if values.get("micro_batch") == 0:
        values["micro_batch"] = "auto"
    replicas = values.pop("replicas", 1)
    if replicas > 1:
        values["replicas"] = values.get("workers", 0) // replicas or None
    values["phases"] = [
        {"rows_per_sample" if key == "k" else key: value for key, value in phase.items()}
        for phase in values.get("phases", ())
    ]
    upgraded: dict[str, Any] = {}
    for old, value in values.items():
        key = f"training.{old}"
        new = (RENAMED_KEYS.get(key) or GROUP_NOW.get(key) or key).partition(" ")[0]
        *groups, name = new.split(".")[1:]
        at = upgraded
        for group in groups:
            at = at.setdefault(group, {})
        at[name] = value
    return upgraded
