"""Which text benchmarks are made from: MedQuAD if there is a copy, else a sample of our own, and what it is called."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import REPOSITORY


@pytest.fixture
def base_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module of a stranger's checkout, with nothing beside it, and a sample as small as it can be."""
    spec = importlib.util.spec_from_file_location("base_text", REPOSITORY / "benchmarks" / "base_text.py")
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)  # which its dataclass looks into
    spec.loader.exec_module(found)
    monkeypatch.setattr(found, "SHARED", tmp_path / "nothing")
    monkeypatch.setattr(found, "SAMPLE_MEGABYTES", 0.5)
    return found


def options(base_text: ModuleType, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    base_text.add_options(parser)
    return parser.parse_args(arguments)


def rows(folder: Path) -> list[dict[str, str]]:
    return [
        json.loads(line)
        for path in folder.glob("*.jsonl.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def test_without_medquad_the_text_is_a_sample_and_is_called_so(base_text: ModuleType, tmp_path: Path) -> None:
    found = base_text.find_base_text(options(base_text), tmp_path)
    assert "sample" in found.name and "seed 2" in found.name and "MedQuAD" in found.name
    records = rows(found.documents)
    assert sum(len(record["text"]) for record in records) > 300_000
    assert all(set(record) == {"text", "focus", "url", "license"} for record in records)
    planted = {json.loads(line)["id"] for line in (found.documents / "truth.jsonl").open()}
    whole = [row for folder in (found.documents / "documents").iterdir() for row in rows(folder)]
    assert len(records) == sum(row["id"] not in planted for row in whole) < len(whole)
    assert {path.stem for path in found.evaluation.glob("*.jsonl")} == {"medqa_synthetic", "pubmedqa_synthetic"}


def test_medquad_is_taken_from_the_folder_that_is_named_or_beside_the_repository(
    base_text: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    for name in ("medquad/a.jsonl.gz", "eval/set.jsonl"):
        (shared / name).parent.mkdir(parents=True)
        (shared / name).touch()
    named = options(base_text, "--medquad", str(shared / "medquad"), "--evaluation", str(shared / "eval"))
    expected = base_text.BaseText("MedQuAD", shared / "medquad", shared / "eval")
    assert base_text.find_base_text(named, tmp_path) == expected
    monkeypatch.setattr(base_text, "SHARED", shared)
    assert base_text.find_base_text(options(base_text), tmp_path) == expected


def test_a_named_folder_without_files_is_refused(base_text: ModuleType, tmp_path: Path) -> None:
    for name in ("--medquad", "--evaluation"):
        with pytest.raises(SystemExit, match=f"{name}.*there is no"):
            base_text.find_base_text(options(base_text, name, str(tmp_path)), tmp_path)
