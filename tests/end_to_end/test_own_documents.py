"""`make biomed DATA= EVAL=`: a user's own documents, here a cut of real ones with a few broken records among them."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest

from tests.end_to_end.house import House
from tests.support import REPOSITORY, SHARED

SETTINGS = [
    "tokens.vocab_size=2048",
    "training.model.size=1m",
    "training.steps=120",
    "training.data.global_batch_size=8",
    "training.parallelism.workers=0",  # Ray is started by other tests
    "evaluation.default_limit=20",
    "evaluation.heldout_documents=100",
    "evaluation.sets.medmcqa.equal_options=leave_out",  # MedMCQA as published has such questions
]


@pytest.mark.skipif(not (SHARED / "medquad").is_dir(), reason="a model of real documents not tested: no MedQuAD here")
def test_a_cut_of_medquad_becomes_a_served_model(house: House, tmp_path: Path) -> None:
    """Real documents, guessed fields and question sets through every stage to an endpoint, by the README's command."""
    data, questions = tmp_path / "medquad", tmp_path / "questions"
    data.mkdir()
    questions.mkdir()
    for source in sorted((SHARED / "medquad").glob("*.jsonl.gz")):
        with gzip.open(source, "rb") as rows, gzip.open(data / source.name, "wb") as cut:
            cut.writelines(itertools.islice(rows, 150))
    with gzip.open(data / "CDC.jsonl.gz", "ab") as cut:
        cut.write(b'{"text": "a broken line\n')
    for source in sorted((SHARED / "eval").glob("*.jsonl")):
        (questions / source.name).write_bytes(source.read_bytes())
    result = house.command(
        ["make", "biomed", f"DATA={data}", f"EVAL={questions}", f"SET={' '.join(SETTINGS)}"], cwd=REPOSITORY
    )
    assert "source jsonl (medquad, " in result.stderr, "guesses are printed"
    assert "question set medmcqa: 2080 questions; 12 left out, with equal options" in result.stderr
    assert "medqa_usmle_4" in result.stdout
    assert "Completion" in result.stdout
    status = json.loads(house.ask("status", "--json"))
    assert status["served"]["name"] == "biomed+medquad"
    corpus = json.loads(house.ask("lineage", "biomed+medquad/corpus", "--json"))
    assert corpus["counts"]["quarantined"] == 1
    evaluation = json.loads(house.ask("lineage", "biomed+medquad/evaluation", "--json"))
    sets = {item["role"] for item in evaluation["inputs"] if item["role"].startswith("set/")}
    assert "set/pubmedqa" in sets and "set/pubmedqa_train" not in sets
