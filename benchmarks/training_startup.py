"""From the start of a process to the first step of a training that runs alone, beside the bare cost of importing torch.

    .venv/bin/python benchmarks/training_startup.py [--json FILE] [--rounds 7] [--size 11m]

Each round starts three processes in turn: an empty Python, one that imports torch, and a whole training of three steps
(`python -m stages.training RUN.json`) on a prepared token stream. A round that is not counted fills the caches. The
parts within the training are those of its `startup` event; what it imports besides torch is what it takes longer
than the process that imports torch only. Absolute seconds depend on the machine: ratios count.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from machine import machine, versions
from rich.console import Console
from rich.table import Table
from spread import spread

from stages.store import Artifact, ArtifactWriter, Store
from stages.tokens import TokensConfig, tokens
from stages.training import TrainingConfig
from stages.training.run import Run

REPOSITORY = Path(__file__).parent.parent
BARE = {"interpreter": "", "torch": "import torch"}
"""Process -> what it imports."""
PARTS = {
    "interpreter": "an empty Python",
    "torch": "import torch",
    "entered": "our other imports",
    "joined": "tokens opened, ranks joined",
    "measured": "number format and rate of products",
    "ready": "model and optimizer",
    "first_step": "first step",
}
DOCUMENTS, WORDS = 400, 2000
STEPS = 3


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", default="11m")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    options = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="headwater-benchmark-") as folder:
        store = Store(folder)
        stream = _tokens(store)
        config = TrainingConfig.model_validate(
            {
                "steps": STEPS,
                "model": {"size": options.size},
                "data": {"global_batch_size": 4},
                "schedule": {"warmup_steps": 0},
                "optimizer": {"name": "adamw"},
                "parallelism": {"workers": 0, "precision": options.precision},
                "validation": {"rows": 1},
            }
        )
        rounds = []
        for number in range(options.rounds + 1):
            with console.status(f"round {number} of {options.rounds} ..."):
                found = {name: _bare(code) for name, code in BARE.items()} | _training(store, stream, config, number)
            if number:
                rounds.append(found)
    result = _result(rounds)
    result |= {"machine": machine(), "versions": versions(["torch"], [], Path(sys.executable)), "size": options.size}
    _print(console, result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


def _bare(code: str) -> float:
    """Seconds from the start of a process to the end of its imports; its exit is not included."""
    began = time.time()
    program = f"{code}\nimport time; print(time.time())"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return float(done.stdout) - began


def _training(store: Store, stream: Artifact, config: TrainingConfig, number: int) -> dict[str, float]:
    """Seconds from the start of a training's process to the end of each part, and of a later step."""
    folder = f"run-{number}"
    store.local_path(folder).mkdir()
    run = Run(
        url=store.url,
        folder=folder,
        tokens_url=store.url,
        tokens=stream.folder,
        tokens_digest=stream.digest,
        config=config.model_dump(mode="json"),
        submitted=time.time(),
    )
    file = store.local_path(f"{folder}/run.json")
    file.write_text(json.dumps(run.as_dict()))
    subprocess.run([sys.executable, "-m", "stages.training", str(file)], cwd=REPOSITORY, check=True)
    outcome = run.outcome()
    if outcome is None or outcome["status"] != "finished":
        raise SystemExit(f"the training did not finish: {outcome}")
    startup = next(event for event in run.events.read()[0] if event["type"] == "startup")
    rates = pq.read_table(store.local_path(f"{folder}/loss.parquet")).to_pydict()
    later = (rates["tokens"][-1] - rates["tokens"][-2]) / rates["tokens_per_second"][-1]
    return {name: startup[name] for name in ("entered", "joined", "measured", "ready", "first_step")} | {
        "later_step": later
    }


def _result(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    parts, before = {}, None
    for name in PARTS:
        parts[name] = spread([one[name] - (one[before] if before else 0.0) for one in rounds])
        before = name
    return {
        "parts": parts,
        "import_torch": spread([one["torch"] for one in rounds]),
        "first_step": spread([one["first_step"] for one in rounds]),
        "later_step": spread([one["later_step"] for one in rounds]),
        "over_import_torch": spread([one["first_step"] / one["torch"] for one in rounds]),
        "over_import_torch_without_step": spread(
            [(one["first_step"] - one["later_step"]) / one["torch"] for one in rounds]
        ),
    }


def _print(console: Console, result: dict[str, Any]) -> None:
    table = Table("part", "seconds", "least", "most", title=f"From process start to the first step, {result['size']}")
    rows = {title: result["parts"][name] for name, title in PARTS.items()}
    rows |= {
        "all of it": result["first_step"],
        "a later step": result["later_step"],
        "over a process that imports torch": result["over_import_torch"],
        "the same without the time of a later step": result["over_import_torch_without_step"],
    }
    for title, found in rows.items():
        table.add_row(title, *(f"{found[name]:.3f}" for name in ("median", "least", "most")))
    console.print(table)


def _tokens(store: Store) -> Artifact:
    """A token stream of random words, by the tokens stage."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(5000)]
    writer = ArtifactWriter(store, "corpus/random-words", "corpus", 1, "0" * 32, {}, {})
    for part, count in (("documents", DOCUMENTS), ("heldout", 4)):
        table = pa.table(
            {
                "doc_id": [f"{draw.getrandbits(128):032x}" for _ in range(count)],
                "text": [" ".join(draw.choices(words, k=WORDS)) for _ in range(count)],
                "uri": [f"{part}.jsonl#record={number}" for number in range(count)],
                "license": ["CC0-1.0"] * count,
            }
        )
        pq.write_table(table, writer.file(f"{part}/random-words/00000.parquet"))
    config = TokensConfig(vocab_size=4096, sequence_length=256, workers=1)
    return tokens.run(config, {"corpus": writer.commit()}, store)


if __name__ == "__main__":
    main()
