"""Going on from a model that exists: what is gained and forgotten, and the speed beside transformers' Trainer.

    .venv/bin/python benchmarks/continued.py --base FOLDER [--documents FOLDER] [--general FILE] [--replay FILE]
        [--steps 60] [--trainer-steps 6] [--json FILE]

- `gain`: the base is trained on the documents (default: the embedded biomedical sample), once without and once with
  `--replay` (a source of general text, three tenths of the tokens), and scored before and after on held-out documents
  and on general text (default: the descriptions of installed packages; better a file that is not replayed).
- `trainer`, `lora`: the same base, the same rows of tokens in the same batches: our training stage in one process
  beside transformers' Trainer (with peft's adapters of rank 16 for LoRA) with AdamW, one after the other, with the
  allocator's settings that ours has. Tokens a second are the median of all steps but the first; memory is the most that
  the process had.

Ratios of one run count.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from machine import machine, versions
from rich.console import Console
from rich.table import Table

TARGETS = {
    "continued_bpb_gain": ">= 0.05",
    "general_bpb_loss_with_replay": "<= 0.01",
    "over_trainer_full": ">= 1.15",
    "over_trainer_lora": ">= 1.15",
    "memory_over_trainer": "<= 0.8",
}
LENGTH, BATCH, RANK = 512, 4, 16
LEARNING_RATE = 3e-4
console = Console(stderr=True)


def recipe(options: argparse.Namespace, replay: bool, steps: int, lora: bool = False) -> dict[str, Any]:
    """The recipe of one run."""
    sources: dict[str, Any] = {}
    content: dict[str, Any] = {"name": "continued"}
    if options.documents:
        sources["documents"] = {"location": str(options.documents.resolve())}
    else:
        content["sample"] = {"megabytes": 4}
        for name in ("monographs", "questions", "notes"):
            sources[f"synthetic_{name}"] = {"location": f"sample://documents/synthetic_{name}"}
    data: dict[str, Any] = {"global_batch_size": BATCH}
    if replay:
        sources["replayed"] = {"location": str(options.replay.resolve()), "license": "LicenseRef-public-domain"}
        data["replay"] = {"source": "replayed"}
    adapters = {"lora": {"rank": RANK, "alpha": 2.0 * RANK}} if lora else {}
    return content | {
        "corpus": {"sources": sources, "decontamination": {"sets": {}}},
        "tokens": {"sequence_length": LENGTH},
        "training": {
            "steps": steps,
            "model": {"base": str(options.base.resolve())} | adapters,
            "data": data,
            "optimizer": {"name": "adamw", "lr": LEARNING_RATE},
            "schedule": {"kind": "cosine", "warmup_steps": min(5, steps - 1), "min_lr_ratio": 0.1},
            "parallelism": {"workers": 0},
            "validation": {"every_steps": steps, "rows": 4},
            "checkpoint": {"memory_every_steps": 0},
        },
        "evaluation": {"heldout_bytes": 100_000, "general_bytes": 50_000}
        | ({"general": str(options.general.resolve())} if options.general else {}),
    }


def build(content: dict[str, Any], folder: Path, until: str) -> dict[str, Any]:
    """Runs the stages of a recipe up to one, and the base's evaluation after the model's; the artifacts by kind."""
    from flows.recipe import load_recipe
    from flows.steps import STEPS, RunArtifacts, evaluation_inputs, list_inputs
    from stages.evaluation import evaluation
    from stages.store import Store

    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    chosen, artifacts, store = load_recipe(str(path)), RunArtifacts(), Store(folder / "store")
    if chosen.sample is None:
        list_inputs(chosen, artifacts)
    for step in (step for step in STEPS if step.needed(chosen)):
        began = time.monotonic()
        artifacts[step.kind] = step.stage.run(step.config(chosen, artifacts), step.inputs(chosen, artifacts), store)
        console.print(f"  {step.kind} {time.monotonic() - began:.1f} s")
        if step.kind == "sample":
            list_inputs(chosen, artifacts)
        if step.kind == "evaluation":
            of_base = evaluation_inputs(chosen, artifacts, artifacts["base"])
            artifacts["base-evaluation"] = evaluation.run(chosen.evaluation, of_base, store)
        if step.kind == until:
            break
    return artifacts.by_kind


def gain(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Bits per byte before and after, on held-out documents and general text, without and with replay."""
    found: dict[str, float] = {}
    for replay in (False, True) if options.replay else (False,):
        console.print(f"gain, {'with' if replay else 'without'} replay")
        made = build(recipe(options, replay, options.steps), folder, "evaluation")
        before, after = (made[kind].manifest.metrics for kind in ("base-evaluation", "evaluation"))
        suffix = "_with_replay" if replay else ""
        own = "bits_per_byte/documents" if replay and options.documents else "bits_per_byte"
        for name, key in (("domain", own), ("general", "bits_per_byte_general")):
            found[f"{name}_before{suffix}"], found[f"{name}_after{suffix}"] = before[key], after[key]
        found[f"continued_bpb_gain{suffix}"] = 1 - after[own] / before[own]
        found[f"general_bpb_loss{suffix}"] = after["bits_per_byte_general"] / before["bits_per_byte_general"] - 1
    return found


def ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Our training stage on the tokens that are built already."""
    import pyarrow.parquet as pq

    made = build(recipe(options, False, options.trainer_steps, options.lora), folder, "training")
    history = pq.read_table(made["training"].local("loss.parquet")).to_pydict()
    seconds = [after - before for before, after in pairwise(history["seconds"])]
    return {"tokens_per_second": BATCH * LENGTH / median(seconds), "losses": history["loss"]}


def trainer(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """transformers' Trainer on the rows that ours reads."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from flows.recipe import load_recipe
    from stages.store import Store, all_artifacts
    from stages.tokens.loader import Loader
    from stages.tokens.reader import TokenReader
    from stages.training.preflight.plan import run_order

    (tokens,) = all_artifacts(Store(folder / "store"), "tokens")
    reader = TokenReader(tokens.local())
    config = load_recipe(str(folder / "recipe.yaml")).training
    order = run_order(reader.shards, tokens.digest, config)
    batches = Loader(reader, order, BATCH)
    rows = np.concatenate([batches[number].rows for number in range(options.trainer_steps)]).astype(np.int64)
    examples = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in rows]
    ends: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        adapters = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, adapters)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=options.trainer_steps,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=min(5, options.trainer_steps - 1),
        weight_decay=0.1,
        adam_beta2=0.95,
        optim="adamw_torch_fused",
        bf16=options.precision == "bf16",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    engine = Trainer(model=model, args=arguments, train_dataset=examples, callbacks=[Clock()])
    engine._get_train_sampler = lambda *a, **k: torch.utils.data.SequentialSampler(examples)
    engine.train()
    seconds = [after - before for before, after in pairwise(ends)]
    return {"tokens_per_second": BATCH * LENGTH / median(seconds), "losses": losses}


def in_child(job: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """A job in a process of its own, with the allocator's settings of our workers."""
    from stages.training.runtime.process import ALLOCATOR

    command = [sys.executable, __file__, *arguments, "--job", job, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | ALLOCATOR, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def beside_trainer(kind: str, arguments: list[str], folder: Path) -> dict[str, float]:
    """Speed, memory and loss of ours and the Trainer's."""
    folder.mkdir()
    console.print(f"{kind}, ours")
    own = in_child("ours", arguments, folder)
    console.print(f"{kind}, transformers' Trainer")
    theirs = in_child("trainer", arguments, folder)
    found = {f"over_trainer_{kind}": own["tokens_per_second"] / theirs["tokens_per_second"]}
    if kind == "full":
        found["memory_over_trainer"] = own["peak_bytes"] / theirs["peak_bytes"]
    for name, one in (("ours", own), ("trainer", theirs)):
        found[f"{kind}/{name}/tokens_per_second"] = one["tokens_per_second"]
        found[f"{kind}/{name}/last_loss"] = one["losses"][-1]
        found[f"{kind}/{name}/gigabytes"] = one["peak_bytes"] / 1e9
    return found


def main() -> None:
    """Measures, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the base's folder")
    parser.add_argument("--documents", type=Path, help="folder of documents to learn")
    parser.add_argument("--general", type=Path, help="general text to score")
    parser.add_argument("--replay", type=Path, help="general text to replay")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--trainer-steps", type=int, default=6)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--job", choices=["ours", "trainer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lora", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        found = {"ours": ours, "trainer": trainer}[options.job](options, options.folder)
        found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(prefix="headwater-benchmark-") as name:
        folder = Path(name)
        result: dict[str, Any] = gain(options, folder)
        for kind, switches in (("full", []), ("lora", ["--lora"])):
            result |= beside_trainer(kind, [*sys.argv[1:], *switches], folder / kind)
    table = Table("", "measured", "target")
    for key, value in result.items():
        table.add_row(key, f"{value:.4g}", TARGETS.get(key, ""))
    Console(width=100).print(table)
    if options.json:
        record = {"machine": machine(), "versions": versions(["torch", "transformers"], [], Path(sys.executable))}
        options.json.write_text(json.dumps(record | {"targets": TARGETS, "results": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
