"""The report of a run: what was guessed, left unread and masked stands in it, whatever characters a name has."""

from __future__ import annotations

import io
import re

from rich.console import Console

from flows.report import Summary, markdown, print_summary

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
        addresses={},
    )
    out = io.StringIO()
    print_summary(Console(file=out, width=200), summary)
    assert NOTE in out.getvalue()
    assert f"- {NOTE}" in markdown(summary)
    assert "| phone | 53 |" in markdown(summary)
    assert re.search(r"Edits inside documents.*phone +53.*boilerplate_lines +2", out.getvalue(), re.DOTALL)
