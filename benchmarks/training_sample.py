"""Accuracy and bits per byte of the sample's model against seconds of training: the recipe beside others of equal time.

    .venv/bin/python benchmarks/training_sample.py [--json FILE] [--plot FILE.svg] [--steps N] [--store FOLDER]

Builds the recipe's tokens (skipped if the store has them) and trains every contestant in this process, step by step in
turn, so that all have the machine as it is; each gets as many steps as take the time of the recipe's own. What is
scored while they learn costs them nothing. Accuracy is that of the recipe's first question set: the option whose text
costs fewest nats a byte.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from flows.inputs import resolve_recipe
from flows.steps import STEP, RunArtifacts, list_inputs
from models import IGNORE_INDEX, matmul
from models.decoder import Decoder
from models.sizes import ModelConfig, config_for_size
from stages.evaluation.config import SetConfig
from stages.evaluation.harness import Task
from stages.evaluation.sets import baselines, read_set
from stages.store import Artifact, Store
from stages.training import TrainingConfig
from stages.training.loop.data import TrainingData
from stages.training.loop.updater import Updater
from stages.training.loop.validation import Validation
from stages.training.metrics.phase_clock import PhaseClock
from stages.training.optim.optimizers import build_optimizers
from stages.training.optim.schedule import LearningRateSchedule, ladder_peak_lr
from stages.training.parallelism.ranks import init_distributed, parallelize
from stages.training.runtime.precision import FORMATS, faster_format

OTHERS: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw"},
    "learning rate / 2": {"lr": 0.5},
    "learning rate x 2": {"lr": 2.0},
    "batch / 2": {"global_batch_size": 0.5},
    "batch x 2": {"global_batch_size": 2},
}
"""What contestants change; learning rate and batch as multiples of the recipe's."""
TIMED = 8
"""Steps of each that are timed beforehand."""
console = Console(stderr=True)


@dataclass
class Contestant:
    """One way to train, and how it went."""

    name: str
    config: TrainingConfig
    data: TrainingData
    updater: Updater
    seconds: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, config: TrainingConfig, tokens: Artifact, precision: str) -> Contestant:
        ranks = init_distributed("cpu")
        data = TrainingData(tokens.local(), tokens.digest, config, 0, 1)
        reader, dtype = data.reader, FORMATS[precision]
        shape = config_for_size(
            config.model.size, reader.vocabulary_size, config.data.max_rows_per_sample * reader.sequence_length
        )
        with torch.device("meta"):
            model = Decoder(shape, reader.eos_id, dtype)
        model = parallelize(model, ranks, config.seed)
        schedule = LearningRateSchedule(config.schedule, config.optimizer.lr or ladder_peak_lr(shape), config.steps)
        optimizers = build_optimizers(model, config.optimizer, schedule, dtype)
        clock, rows = PhaseClock(ranks.device), config.data.global_batch_size
        return cls(name, config, data, Updater(model, optimizers, config.optimizer, ranks, clock, rows))

    def step(self) -> None:
        """One update."""
        number = len(self.seconds)
        batch = self.data.batch(number)
        began = time.perf_counter()
        self.updater.compute(batch, float(batch.valid), min(self.config.data.global_batch_size, 16))
        self.updater.apply(number)
        self.seconds.append(time.perf_counter() - began)

    def score(self, validation: Validation, questions: Questions) -> None:
        """Adds a point to the curve."""
        model = self.updater.model
        bits = validation.bits_per_byte(model, self.updater.ranks, 16)
        self.curve.append(
            {
                "step": len(self.seconds),
                "seconds": sum(self.seconds),
                "bits_per_byte": bits.total if bits else float("nan"),
                "accuracy": questions.accuracy(model),
            }
        )


class Questions:
    """A question set as rows of ids, options of one question after each other."""

    def __init__(self, questions: Sequence[Any], tokenizer_file: Path, most: int):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        task = Task("questions", "cloze", SetConfig(), questions[:most])
        constant = baselines(task.questions)
        self.baseline = max(constant.random, constant.majority)
        self.gold = torch.tensor([question.answer for question in task.questions])
        self.rows: list[tuple[list[int], int, int, int]] = []
        for number, question in enumerate(task.questions):
            prompt = task.prompt(question)
            before = tokenizer.encode(prompt, add_special_tokens=False).ids
            for option in task.choices(question):
                ids = tokenizer.encode(f"{prompt} {option}", add_special_tokens=False).ids
                self.rows.append((ids, len(before), number, len(option.encode())))

    @torch.no_grad()
    def accuracy(self, model: Decoder) -> float:
        """Share of questions whose right option costs fewest nats a byte."""
        order = sorted(range(len(self.rows)), key=lambda n: len(self.rows[n][0]))
        costs = torch.zeros(len(self.rows))
        for start in range(0, len(order), 64):
            some = [self.rows[n] for n in order[start : start + 64]]
            length = max(len(ids) for ids, *_ in some) - 1
            tokens = torch.full((len(some), length), model.eos_id)
            targets = torch.full((len(some), length), IGNORE_INDEX)
            for at, (ids, before, _, _) in enumerate(some):
                tokens[at, : len(ids) - 1] = torch.tensor(ids[:-1])
                targets[at, before - 1 : len(ids) - 1] = torch.tensor(ids[before:])
            _, nats = model(tokens, targets)
            costs[order[start : start + 64]] = nats.sum(1) / torch.tensor([size for *_, size in some])
        best = torch.full((len(self.gold),), float("inf"))
        chosen, place, previous = torch.zeros(len(self.gold), dtype=torch.long), 0, -1
        for (_, _, number, _), cost in zip(self.rows, costs, strict=True):
            place = place + 1 if number == previous else 0
            previous = number
            if cost < best[number]:
                best[number], chosen[number] = cost, place
        return float((chosen == self.gold).float().mean())


def main() -> None:
    """Trains all, prints the curves, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the curves as .svg or .png")
    parser.add_argument("--recipe", default="biomed")
    parser.add_argument("--steps", type=int, help="of the recipe's own contestant; absent: the recipe's")
    parser.add_argument("--points", type=int, default=6, help="of each curve")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--only", action="append", default=[], choices=OTHERS, help="some of the others")
    parser.add_argument("--store", type=Path, help="folder of a store that stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-sample-") as folder:
        result = run(options, Store(options.store or Path(folder)))
    report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        draw(result, options.plot)


def run(options: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Trains the contestants in turn."""
    recipe, _ = resolve_recipe(options.recipe)
    artifacts = RunArtifacts()
    for kind in ("sample", "corpus", "tokens"):
        with console.status(f"{kind} ..."):
            step = STEP[kind]
            artifacts[kind] = step.stage.run(step.config(recipe, artifacts), step.inputs(recipe, artifacts), store)
        if kind == "sample":
            list_inputs(recipe, artifacts)
    tokens, precision = artifacts["tokens"], faster_format(torch.device("cpu"))
    matmul.set_backend(matmul.faster_backend(torch.device("cpu"), FORMATS[precision]))
    folder = tokens.local()
    name, listing = next(iter(artifacts.sets.items()))
    questions = Questions(read_set(listing).questions, folder / "tokenizer" / "tokenizer.json", options.questions)
    validation = Validation(folder, recipe.training.validation.rows)
    own = recipe.training.model_copy(update={"steps": options.steps or recipe.training.steps})
    stream = json.loads(tokens.read("stream.json"))
    shape = config_for_size(
        own.model.size, stream["vocabulary_size"], own.data.max_rows_per_sample * stream["sequence_length"]
    )
    configs = {"the recipe": own} | {n: changed(own, shape, **OTHERS[n]) for n in options.only or OTHERS}
    steps = equal_time(configs, tokens, precision)
    contestants = [
        Contestant.of(n, config.model_copy(update={"steps": steps[n]}), tokens, precision)
        for n, config in configs.items()
    ]
    for point in track(range(1, options.points + 1), "training", console=console):
        until = {c.name: c.config.steps * point // options.points for c in contestants}
        while behind := [c for c in contestants if len(c.seconds) < until[c.name]]:
            for contestant in behind:
                contestant.step()
        for contestant in contestants:
            contestant.score(validation, questions)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "precision": precision,
        "questions": f"{len(questions.gold)} questions of {name}",
        "baseline": questions.baseline,
        "curves": {c.name: c.curve for c in contestants},
        "tokens_per_second": {
            c.name: c.config.data.global_batch_size * c.data.reader.sequence_length / median(c.seconds)
            for c in contestants
        },
    }


def changed(config: TrainingConfig, shape: ModelConfig, **changes: Any) -> TrainingConfig:
    """A contestant's config, of a model of the recipe's shape."""
    optimizer, data = config.optimizer, config.data
    if "lr" in changes:
        changes["lr"] *= optimizer.lr or ladder_peak_lr(shape)
    if "global_batch_size" in changes:
        size = max(1, int(changes.pop("global_batch_size") * data.global_batch_size))
        data = data.model_copy(update={"global_batch_size": size})
    return config.model_copy(update={"optimizer": optimizer.model_copy(update=changes), "data": data})


def equal_time(configs: dict[str, TrainingConfig], tokens: Artifact, precision: str) -> dict[str, int]:
    """Steps of each that take as long as the first's, by a few that are timed in turn."""
    tried = [Contestant.of(name, config, tokens, precision) for name, config in configs.items()]
    for _ in range(TIMED):
        for contestant in tried:
            contestant.step()
    seconds = {c.name: median(c.seconds[1:]) for c in tried}
    first = next(iter(configs))
    return {name: max(1, round(configs[first].steps * seconds[first] / seconds[name])) for name in configs}


def report(result: dict[str, Any]) -> None:
    """Prints the curves."""
    shown = Console(width=130)
    shown.print(f"\n{result['date']}, {result['machine']['processor']}, {result['precision']}; {result['questions']}")
    for name, curve in result["curves"].items():
        rate = result["tokens_per_second"][name]
        table = Table("step", "seconds", "bits per byte", "accuracy", title=f"{name}: {rate:.0f} tokens/s")
        for point in curve:
            table.add_row(
                str(point["step"]),
                f"{point['seconds']:.0f}",
                f"{point['bits_per_byte']:.3f}",
                f"{point['accuracy']:.1%}",
            )
        shown.print(table)


def draw(result: dict[str, Any], file: Path) -> None:
    """Draws the curves: bits per byte and accuracy over seconds of training."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "headwater"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for panel, key, label in zip(
        panels, ("bits_per_byte", "accuracy"), ("bits per held-out byte", "accuracy"), strict=True
    ):
        for name, curve in result["curves"].items():
            panel.plot([p["seconds"] for p in curve], [p[key] for p in curve], marker="o", markersize=3, label=name)
        panel.set_xlabel("seconds of training")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[1].axhline(result["baseline"], color="grey", linestyle="--", label="constant answers")
    panels[1].yaxis.set_major_formatter("{x:.0%}")
    panels[1].legend(frameon=False)
    figure.suptitle(f"{result['questions']}; {result['machine']['processor']}, {result['precision']}, {result['date']}")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
