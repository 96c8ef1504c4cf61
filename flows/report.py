"""A run's summary: printed in the terminal, stored as a report in Prefect, and printed by `--json`."""

from __future__ import annotations

import io
import time
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.text import Text

from flows import present, registry
from flows.job import Job
from serving.client import complete
from serving.gateway.keys import read_key
from serving.record import Deployment, read_record
from stages.corpus import summary_rows
from stages.evaluation import beside_base, reasons, table
from stages.store import HeadwaterError

NOT_RULES = ("source", "in", "quarantined", "heldout", "kept", "bytes_in", "bytes_kept", "characters_kept")
"""Columns of the corpus table that are no reason for removal."""
REFERENCE_GFLOPS = 900.0
"""Matmul rate of the machine that our targets are stated for; machines differ by two, so times are scaled to it."""

GAIN = "What the model gained over its base, and what it forgot"
TOKEN_COLUMNS = ("vocabulary", "documents", "bytes", "tokens", "rows", "shards", "heldout_tokens")


class Summary(BaseModel):
    """Results of one run."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    recipe: str
    accepted: bool
    reasons: list[str]
    """The gate's reasons, one sentence each."""
    stages: list[dict[str, Any]]
    """Per stage: seconds, state (`built`, `cached`, `done`), artifact."""
    seconds: float
    """The whole run, without the start-up of Prefect."""
    overhead_fraction: float
    """(whole run - the stages' own work) / whole run; 0 if everything was cached."""
    notes: list[str] = []
    """What was guessed about the documents, and which files are not read."""
    corpus: list[dict[str, Any]]
    edits: dict[str, int] = {}
    """How often each kind of edit was made inside documents: personal data, boilerplate, lines."""
    tokens: dict[str, int]
    training: dict[str, float]
    precision: str
    """Number format of training's matrix products."""
    loss: list[float]
    """Training loss of each step."""
    evaluation: list[dict[str, Any]]
    gain: list[dict[str, Any]] = []
    """The same measures of the base that the model went on from, beside the model's."""
    completions: list[dict[str, str]]
    served: str = ""
    """What the endpoint serves at the end, in words."""
    addresses: dict[str, str]


def summarise(job: Job, passed: bool, model: registry.RegisteredModel) -> Summary:
    """Collects the run's results and asks the endpoint for real completions of the recipe's example prompts."""
    artifacts = job.artifacts
    losses = pq.read_table(artifacts["training"].local("loss.parquet"), columns=["loss"])["loss"].to_pylist()
    total = time.monotonic() - job.began
    own = sum(timing.own_seconds for timing in job.timings)
    all_cached = all(timing.state != "built" for timing in job.timings)
    settings = job.settings
    return Summary(
        recipe=job.recipe.name,
        accepted=passed,
        reasons=[reason.text for reason in reasons(artifacts["verdict"]).reasons] if "verdict" in artifacts else [],
        stages=[vars(timing) for timing in job.timings],
        seconds=total,
        overhead_fraction=0.0 if all_cached or total == 0 else max(0.0, total - own) / total,
        notes=job.notes,
        corpus=present.records(*summary_rows(artifacts["corpus"])),
        edits=artifacts["corpus"].manifest.details.get("edits", {}),
        tokens=artifacts["tokens"].manifest.counts,
        training=artifacts["training"].manifest.metrics,
        precision=artifacts["training"].manifest.details["precision"],
        loss=losses,
        evaluation=present.records(*table(artifacts["evaluation"])),
        gain=present.records(*beside_base(artifacts["evaluation"], artifacts["base-evaluation"]))
        if "base-evaluation" in artifacts
        else [],
        completions=_completions(job) if passed else [],
        served=describe_served(read_record(job.store).stable, artifacts["model"].digest),
        addresses={
            "Prefect UI": settings.prefect_url,
            "MLflow UI": registry.model_url(settings.mlflow_url, model),
            "endpoint": f"{settings.gateway_url}/v1",
            "API key": str(settings.api_key_file),
            "weights": job.store.where(f"{artifacts['model'].folder}/weights"),
        },
    )


def describe_served(stable: Deployment | None, digest: str) -> str:
    """What the endpoint serves, and whether it is the model with this digest, which the run has built."""
    if stable is None:
        return "no model; this run's was not released"
    name = f"{stable.name} version {stable.version}"
    if stable.model_digest == digest:
        return f"{name}, this run's model"
    return f"{name}, as before; this run's model was not released"


def print_summary(console: Console, summary: Summary) -> None:
    """Prints the whole summary."""
    _table(console, "Documents", _by_source(summary.corpus))
    for note in summary.notes:
        console.print(note, markup=False, soft_wrap=True)
    _table(console, "Removed, by the first rule that applied", _by_rule(summary.corpus))
    if summary.edits:
        _table(console, "Edits inside documents", _by_edit(summary.edits))
    _table(console, "Tokens", [{key: summary.tokens[key] for key in TOKEN_COLUMNS}])
    if summary.loss:
        first, last = summary.loss[0], summary.loss[-1]
        console.print(f"[bold]Training loss[/] {first:.3f} {present.sparkline(summary.loss)} {last:.3f}")
        console.print(f"  {_training_line(summary.training)}\n")
    _table(console, "Evaluation", [_compact_scores(row) for row in summary.evaluation])
    _table(console, GAIN, summary.gain)
    console.print(f"[bold]Gate[/] {'accepted' if summary.accepted else 'rejected'}")
    for reason in summary.reasons:
        console.print(f"  {reason}", markup=False)
    for completion in summary.completions:
        console.print("\n[bold]Completion[/] from the endpoint")
        console.print(Text.assemble((completion["prompt"], "dim"), completion["text"]))
    console.print()
    times = [row | {"seconds": f"{row['seconds']:.1f}"} for row in summary.stages]
    _table(console, "Time", [{key: row[key] for key in ("stage", "state", "seconds")} for row in times])
    rate, any_built = summary.training.get("product_gflops"), any(row["state"] == "built" for row in summary.stages)
    console.print(
        f"{summary.seconds:.1f} s in total"
        + (f", {summary.overhead_fraction:.0%} of it orchestration" if summary.overhead_fraction else "")
        + (f"; this machine multiplies matrices at {rate:,.0f} GFLOP/s in {summary.precision}" if rate else "")
        + (
            f", at {REFERENCE_GFLOPS:.0f} it would take {summary.seconds * rate / REFERENCE_GFLOPS:.0f} s"
            if rate and any_built
            else ""
        )
    )
    if summary.served:
        console.print(f"[bold]{'serving':<11}[/] {summary.served}")  # names have no markup: `Deployment`
    for name, address in summary.addresses.items():
        console.print(f"[bold]{name:<11}[/] {address}", soft_wrap=True)


def _by_source(corpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "source": row["source"],
            "in": row["in"],
            "removed": row["in"] - row["kept"] - row["heldout"] - row["quarantined"],
            "quarantined": row["quarantined"],
            "held out": row["heldout"],
            "kept": row["kept"],
            "kept bytes": row["bytes_kept"],
        }
        for row in corpus
    ]


def _by_rule(corpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents removed by each rule, in total and as a share."""
    total = corpus[-1]
    rules = [key for key in total if key not in NOT_RULES]
    return [
        {"rule": rule, "documents": total[rule], "share": f"{total[rule] / max(1, total['in']):.1%}"} for rule in rules
    ]


def _training_line(metrics: dict[str, float]) -> str:
    parts = []
    if "bits_per_byte" in metrics:
        parts.append(f"held-out {metrics['bits_per_byte']:.3f} bits per byte")
    if "tokens_per_second" in metrics:
        parts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    if "model_flops_utilization" in metrics:
        parts.append(f"{metrics['model_flops_utilization']:.0%} of the machine's matmul rate")
    return ", ".join(parts)


def markdown(summary: Summary) -> str:
    """The summary as Markdown, for the Prefect UI."""
    parts = [f"# {summary.recipe}: {'accepted' if summary.accepted else 'rejected by the gate'}"]
    parts += [f"- {reason}" for reason in summary.reasons]
    documents = [_compact_counts(row) for row in summary.corpus]
    parts += ["", "## Documents", _markdown_table(documents), *(f"- {note.strip()}" for note in summary.notes)]
    if summary.edits:
        parts += ["", "## Edits inside documents", _markdown_table(_by_edit(summary.edits))]
    parts += ["", "## Evaluation", _markdown_table(summary.evaluation)]
    if summary.gain:
        parts += [f"## {GAIN}", _markdown_table(summary.gain)]
    if summary.loss:
        parts += [
            "## Training loss",
            f"{summary.loss[0]:.3f} `{present.sparkline(summary.loss)}` {summary.loss[-1]:.3f}",
        ]
    for completion in summary.completions:
        parts += ["## Completion", "```", completion["prompt"] + completion["text"], "```"]
    parts += [
        "## Addresses",
        *([f"- serving: {summary.served}"] if summary.served else []),
        *(f"- {name}: {address}" for name, address in summary.addresses.items()),
    ]
    return "\n".join(parts)


def _by_edit(edits: dict[str, int]) -> list[dict[str, Any]]:
    return [{"edit": kind, "times": times} for kind, times in edits.items()]


def _completions(job: Job) -> list[dict[str, str]]:
    key = read_key(job.settings.api_key_file)
    out = []
    for prompt in job.recipe.example_prompts:
        answer = complete(job.settings.gateway_url, key, job.recipe.name, prompt, max_tokens=48)
        if not answer.strip():
            raise HeadwaterError(f"the endpoint returned an empty completion for {prompt!r}; see the engine's log")
        out.append({"prompt": prompt, "text": answer})
    return out


def _compact_counts(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the corpus table without its rules: Prefect's page is narrow, and has the whole table as an artifact."""
    removed = sum(value for key, value in row.items() if key not in NOT_RULES)
    return {
        "source": row["source"],
        "in": row["in"],
        "removed": removed + row.get("quarantined", 0),
        "held out": row.get("heldout", 0),
        "kept": row["kept"],
    }


def _compact_scores(row: dict[str, str]) -> dict[str, str]:
    """A row of the evaluation's table in fewer columns, for terminals."""
    error = f" ± {row['± se']}" if row["± se"] else ""
    baselines = [f"{name} {row[name]}" for name in ("random", "majority", "unigram") if row[name]]
    return {
        "set": row["set"],
        "n": row["n"],
        "value": f"{row['value']}{error} {row['measure']}",
        "baselines": ", ".join(baselines),
        "verdict": row["verdict"],
    }


def _table(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        present.print_table(console, title, list(rows[0]), [list(row.values()) for row in rows])


def _markdown_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    out = io.StringIO()
    out.write("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]) + "\n")
    for row in rows:
        out.write("| " + " | ".join(present.text(value) for value in row.values()) + " |\n")
    return out.getvalue()
