"""What a run ends with: the summary that the terminal prints, Prefect keeps as a report, and `--json` gives."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from flows import present, registry
from flows.job import Job
from serving.client import complete
from serving.keys import read_key
from stages.artifact import HeadwaterError
from stages.corpus import summary_rows
from stages.evaluation import reasons, table


class Summary(BaseModel):
    """One run in numbers."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    recipe: str
    accepted: bool
    reasons: list[str]
    """The gate's reasons, one sentence each."""
    stages: list[dict[str, Any]]
    """Per stage: seconds, whether it was made or there, artifact."""
    seconds: float
    """The whole run, service start-up apart."""
    overhead_fraction: float
    """(whole run - the stages' own work) / whole run; 0 when nothing had to be made."""
    corpus: list[dict[str, Any]]
    tokens: dict[str, int]
    training: dict[str, float]
    loss: list[float]
    """Training loss a step."""
    evaluation: list[dict[str, Any]]
    completions: list[dict[str, str]]
    addresses: dict[str, str]


def summarise(job: Job, passed: bool, model: registry.RegisteredModel) -> Summary:
    """Collects the run's results and asks the endpoint for real completions of the recipe's example prompts."""
    made = job.made
    losses = pq.read_table(made["training"].local("loss.parquet"), columns=["loss"])["loss"].to_pylist()
    total = sum(timing.seconds for timing in job.timings)
    own = sum(timing.own_seconds for timing in job.timings)
    nothing_made = all(timing.state != "made" for timing in job.timings)
    settings = job.settings
    return Summary(
        recipe=job.recipe.name,
        accepted=passed,
        reasons=[reason.text for reason in reasons(made["verdict"]).reasons] if "verdict" in made.artifacts else [],
        stages=[vars(timing) for timing in job.timings],
        seconds=total,
        overhead_fraction=0.0 if nothing_made or total == 0 else max(0.0, total - own) / total,
        corpus=present.records(*summary_rows(made["corpus"])),
        tokens=made["tokens"].manifest.counts,
        training=made["training"].manifest.metrics,
        loss=losses,
        evaluation=present.records(*table(made["evaluation"])),
        completions=_completions(job) if passed else [],
        addresses={
            "Prefect UI": settings.prefect_url,
            "MLflow UI": registry.model_url(settings.mlflow_url, model),
            "endpoint": f"{settings.gateway_url}/v1",
            "API key": str(settings.api_key_file),
            "weights": job.store.path(f"{made['model'].folder}/weights"),
        },
    )


def print_summary(console: Console, summary: Summary) -> None:
    """The whole summary for people."""
    _table(console, "Documents", summary.corpus)
    _table(console, "Tokens", [summary.tokens])
    if summary.loss:
        first, last = summary.loss[0], summary.loss[-1]
        console.print(f"[bold]Training loss[/] {first:.3f} {present.sparkline(summary.loss)} {last:.3f}")
        console.print("  " + ", ".join(f"{key} {present.text(value)}" for key, value in summary.training.items()))
        console.print()
    _table(console, "Evaluation", summary.evaluation)
    console.print(f"[bold]Gate[/] {'accepted' if summary.accepted else 'rejected'}")
    for reason in summary.reasons:
        console.print(f"  {reason}", markup=False)
    console.print()
    for completion in summary.completions:
        console.print("[bold]Completion[/] (from the endpoint)")
        console.print(f"  {completion['prompt']}", style="dim", markup=False)
        console.print(f"  {completion['text'].strip()}", markup=False)
    console.print()
    _table(console, "Time", [{key: row[key] for key in ("stage", "state", "seconds")} for row in summary.stages])
    console.print(
        f"{summary.seconds:.1f} s in all"
        + (
            f", of which {summary.overhead_fraction:.0%} around the stages' own work"
            if summary.overhead_fraction
            else ""
        )
    )
    for name, address in summary.addresses.items():
        console.print(f"[bold]{name:<11}[/] {address}")


def markdown(summary: Summary) -> str:
    """The same as Markdown, for the Prefect UI."""
    parts = [f"# {summary.recipe}: {'accepted' if summary.accepted else 'rejected by the gate'}"]
    parts += [f"- {reason}" for reason in summary.reasons]
    parts += ["", "## Documents", _markdown_table(summary.corpus), "## Evaluation", _markdown_table(summary.evaluation)]
    if summary.loss:
        parts += [
            "## Training loss",
            f"{summary.loss[0]:.3f} `{present.sparkline(summary.loss)}` {summary.loss[-1]:.3f}",
        ]
    for completion in summary.completions:
        parts += ["## Completion", "```", completion["prompt"] + completion["text"], "```"]
    parts += ["## Addresses", *(f"- {name}: {address}" for name, address in summary.addresses.items())]
    return "\n".join(parts)


def _completions(job: Job) -> list[dict[str, str]]:
    key = read_key(job.settings.api_key_file)
    out = []
    for prompt in job.recipe.example_prompts:
        answer = complete(job.settings.gateway_url, key, job.recipe.name, prompt, max_tokens=48)
        if not answer.strip():
            raise HeadwaterError(f"the endpoint answered {prompt!r} with nothing; see the engine's log")
        out.append({"prompt": prompt, "text": answer})
    return out


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
