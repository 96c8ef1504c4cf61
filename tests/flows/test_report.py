"""The report of a run: what was guessed, left unread and masked stands in it, whatever characters a name has."""

from __future__ import annotations

import io
import re

from rich.console import Console

from flows.report import Summary, describe_served, markdown, print_summary
from serving.record import Deployment

NOTE = "source s: not read: no reader for .pdf: 2 ([/bold].pdf, b.pdf)"


def test_notes_and_edits_are_shown() -> None:
    corpus = {"source": "s", "in": 1, "quarantined": 0, "heldout": 0, "kept": 1, "bytes_in": 1, "bytes_kept": 1}
    summary = Summary(
        recipe="r",
        accepted=True,
        reasons=[],
        stages=[{"stage": "corpus", "state": "built", "seconds": 1.0}],
        seconds=1.0,
        overhead_fraction=0.0,
        notes=[NOTE],
        corpus=[corpus],
        edits={"phone": 53, "boilerplate_lines": 2},
        tokens=dict.fromkeys(("vocabulary", "documents", "bytes", "tokens", "rows", "shards", "heldout_tokens"), 1),
        training={},
        precision="fp32",
        loss=[],
        evaluation=[],
        completions=[],
        served="finance version 2, as before; this run's model was not released",
        addresses={},
    )
    out = io.StringIO()
    print_summary(Console(file=out, width=200), summary)
    assert NOTE in out.getvalue()
    assert f"- {NOTE}" in markdown(summary)
    assert "| phone | 53 |" in markdown(summary)
    assert re.search(r"Edits inside documents.*phone +53.*boilerplate_lines +2", out.getvalue(), re.DOTALL)
    assert f"serving     {summary.served}" in out.getvalue() and f"- serving: {summary.served}" in markdown(summary)


def test_the_end_says_what_is_served_and_whether_it_is_this_runs_model() -> None:
    stable = Deployment(name="finance", version="2", model_folder="model/0123456789abcdef", model_digest="a" * 64)
    assert describe_served(stable, "a" * 64) == "finance version 2, this run's model"
    assert describe_served(stable, "b" * 64) == "finance version 2, as before; this run's model was not released"
    assert describe_served(None, "b" * 64) == "no model; this run's was not released"
