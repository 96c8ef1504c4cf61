"""`headwater run --dry-run`: what would run, what was guessed, and what is not read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli.run import _dry_run


def test_a_dry_run_names_what_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Données [x]"
    folder.mkdir()
    (folder / "a.txt").write_text("A text.")
    (folder / "b.pdf").write_text("x")
    os.mkfifo(folder / "pipe.txt")
    settings = SimpleNamespace(store=str(tmp_path / "store"))
    _dry_run(settings, "biomed", str(folder), None, [], False, True)
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    unread = [note.partition(": ")[2] for note in rows["corpus"]["notes"] if note.startswith("not read")]
    assert unread == ["named pipe, not a regular file: 1 (pipe.txt)", "no reader for .pdf: 1 (b.pdf)"]
    assert "notes" not in rows["training"]
    _dry_run(settings, "biomed", str(folder), None, [], False, False)
    shown = capsys.readouterr()
    assert "pretrain/biomed+donnees--x-" in shown.out
    assert "no reader for .pdf: 1 (b.pdf)" in " ".join(shown.err.split())
    assert not (tmp_path / "store").exists()
