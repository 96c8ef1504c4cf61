"""The two stages as the flow runs them."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stages.evaluation as ev
from stages.corpus.reading.listing import Listing, list_files
from stages.evaluation import (
    EvaluationConfig,
    GatePolicy,
    GeneralText,
    SetConfig,
    package_descriptions,
    read_general,
)
from stages.evaluation.sets import baselines, read_set, subset
from stages.store import Artifact, ConfigError, InputError, StoreError
from tests.stages.evaluation.evaluation_world import World, make_questions, write_set
from tests.support import REPOSITORY

CONFIG = EvaluationConfig(
    sets={"four": SetConfig(limit=20, formulations=("cloze", "letter"), normalise="bytes")}, device="cpu", threads=1
)


@pytest.fixture(scope="module")
def listings(world: World) -> dict[str, Listing]:
    folder = world.folder / "sets"
    return {
        "set/four": write_set(folder / "four.jsonl", make_questions(30)),
        "set/long": write_set(folder / "long.jsonl", make_questions(25, options=3, seed=1, context=True)),
        "set/four_train": write_set(folder / "four_train.jsonl", make_questions(5, seed=2)),
    }


def evaluate(
    world: World, listings: dict[str, Listing], model: str = "one", config: EvaluationConfig = CONFIG
) -> Artifact:
    inputs: dict[str, Any] = {"model": world.models[model], "tokens": world.tokens, **listings}
    return ev.evaluation.run(config, inputs, world.store)


@pytest.fixture(scope="module")
def artifact(world: World, listings: dict[str, Listing]) -> Artifact:
    return evaluate(world, listings)


def lines(artifact: Artifact, path: str) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in artifact.read(path).splitlines()]


def test_metrics_and_counts(artifact: Artifact, listings: dict[str, Listing]) -> None:
    metrics, counts = artifact.manifest.metrics, artifact.manifest.counts
    assert counts == {"questions/four": 20, "questions/long": 25, "heldout_documents": 22}
    chosen = subset(read_set(listings["set/four"]).questions, 20, 0)
    base = baselines(chosen)
    assert (metrics["four/random"], metrics["four/majority"]) == (base.random, base.majority)
    rows = lines(artifact, "samples/four.jsonl")
    cloze = [row for row in rows if row["formulation"] == "cloze"]
    letter = [row for row in rows if row["formulation"] == "letter"]
    assert [row["id"] for row in cloze] == [row["id"] for row in letter] == [q.id for q in chosen]
    for name, field in (("none", "prediction"), ("characters", "prediction_characters"), ("bytes", "prediction_bytes")):
        hits = sum(row[field] == row["gold"] for row in cloze) / 20
        assert metrics[f"four/accuracy_cloze_{name}"] == pytest.approx(hits)
    assert metrics["four/accuracy_cloze"] == metrics["four/accuracy_cloze_bytes"]
    assert metrics["four/accuracy_letter"] == pytest.approx(sum(r["prediction"] == r["gold"] for r in letter) / 20)
    documents = lines(artifact, "bits_per_byte.jsonl")
    total = sum(d["nll"] for d in documents) / 0.6931471805599453 / sum(d["bytes"] for d in documents)
    assert metrics["bits_per_byte"] == pytest.approx(total)
    assert {d["source"] for d in documents} == {"books", "notes"}
    assert metrics["bits_per_byte_unigram"] < metrics["bits_per_byte"]  # a random model knows less than a count


def test_the_table_says_what_was_scored(artifact: Artifact) -> None:
    columns, rows = ev.table(artifact)
    assert all(len(row) == len(columns) and all(isinstance(cell, str) for cell in row) for row in rows)
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [(row["set"], row["n"], row["measure"]) for row in table] == [
        ("held-out", "22 documents", "bits per byte"),
        ("held-out books", "13 documents", "bits per byte"),
        ("held-out notes", "9 documents", "bits per byte"),
        ("four", "20 of 30", "accuracy, cloze per byte"),
        ("four", "20 of 30", "accuracy, letter"),
        ("long", "25", "accuracy, cloze"),
    ]
    assert table[0]["verdict"] == "not below unigram"
    assert table[3]["value"] == f"{artifact.manifest.metrics['four/accuracy_cloze']:.3f}"


def test_events_tell_progress_scores_and_what_was_left_out(artifact: Artifact) -> None:
    events, _ = artifact.events().read()
    assert [e["set"] for e in events if e["type"] == "set_left_out"] == ["four_train"]
    progress = [e for e in events if e["type"] == "progress"]
    for unit, total in (("windows", None), ("options", 20 * 4 * 2 + 25 * 3)):
        steps = [e for e in progress if e["unit"] == unit]
        assert steps[-1]["done"] == steps[-1]["total"] and len(steps) <= 51
        assert total is None or steps[-1]["total"] == total
        assert [e["done"] for e in steps] == sorted(e["done"] for e in steps)
    assert {e.get("set", e.get("source")) for e in events if e["type"] == "score"} >= {"all", "four", "long"}
    truncated = {e["set"]: e["truncated"] for e in events if e["type"] == "score" and "set" in e}
    summary = json.loads(artifact.read("results.json"))["sets"]
    assert truncated["long"] == summary["long"]["formulations"]["cloze"]["truncated"] > 0


def test_how_it_is_run_changes_no_figure(world: World, listings: dict[str, Listing], artifact: Artifact) -> None:
    other = CONFIG.model_copy(update={"batch_size": 3, "memory_mib": 2, "threads": 2})
    inputs: dict[str, Any] = {"model": world.models["one"], "tokens": world.tokens, **listings}
    plan = ev.evaluation.plan(other, inputs, world.store)
    assert plan.done is not None and plan.done.digest == artifact.digest
    moved = replace(plan, folder="evaluation/again", done=None)
    again = ev.evaluation.run(other, inputs, world.store, moved)
    assert again.manifest.metrics == pytest.approx(artifact.manifest.metrics, rel=1e-4)


def test_a_bad_row_stops_before_anything_is_scored(world: World, listings: dict[str, Listing]) -> None:
    bad = write_set(
        world.folder / "sets" / "bad.jsonl", [{"id": "x", "question": "q", "options": ["a", "b"], "answer": 7}]
    )
    with pytest.raises(InputError, match=r"bad.jsonl:1: answer 7"):
        evaluate(world, {**listings, "set/bad": bad})


def test_questions_with_equal_options_are_left_out_and_counted(world: World) -> None:
    rows = make_questions(4)
    rows[2]["options"][3] = f" {rows[2]['options'][0]} "
    listing = write_set(world.folder / "sets" / "equal.jsonl", rows)
    config = EvaluationConfig(
        sets={"equal": SetConfig(equal_options="leave_out")}, heldout_documents=0, device="cpu", threads=1
    )
    with pytest.raises(InputError, match=r"equal\.jsonl:3: two options are equal"):
        evaluate(world, {"set/equal": listing}, config=EvaluationConfig(heldout_documents=0, device="cpu"))
    artifact = evaluate(world, {"set/equal": listing}, config=config)
    assert [row["id"] for row in lines(artifact, "samples/equal.jsonl")] == ["q0", "q1", "q3"]
    assert ev.table(artifact)[1][0][1] == "3 of 4"
    (left_out,) = [e for e in artifact.events().read()[0] if e["type"] == "questions_left_out"]
    assert (left_out["set"], left_out["questions"]) == ("equal", 1)


def test_options_for_a_set_that_is_not_there(world: World, listings: dict[str, Listing]) -> None:
    config = EvaluationConfig(sets={"fuor": SetConfig()})
    with pytest.raises(ConfigError, match=r"no input set named fuor; input sets: four, four_train, long"):
        evaluate(world, listings, config=config)


def test_a_device_that_is_not_there(world: World) -> None:
    with pytest.raises(ConfigError, match="unknown device 'warp'"):
        evaluate(world, {}, config=EvaluationConfig(device="warp", seed=1))


def test_a_folder_that_is_no_model(world: World) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        ev.evaluation.run(
            CONFIG.model_copy(update={"sets": {}}), {"model": world.tokens, "tokens": world.tokens}, world.store
        )


def test_without_held_out_documents_there_is_no_bits_per_byte(world: World, listings: dict[str, Listing]) -> None:
    config = EvaluationConfig(heldout_documents=0, default_limit=4, device="cpu")
    artifact = evaluate(world, listings, config=config)
    assert "bits_per_byte" not in artifact.manifest.metrics
    verdict = ev.verdict.run(GatePolicy(), {"candidate": artifact}, world.store)
    assert not ev.reasons(verdict).accepted


def test_verdicts(world: World, listings: dict[str, Listing], artifact: Artifact) -> None:
    first = ev.verdict.run(GatePolicy(), {"candidate": artifact}, world.store)
    assert json.loads(first.read("verdict.json"))["accepted"] is False  # a random model is worse than unigrams
    assert first.manifest.metrics == {"accepted": 0.0}
    same = ev.verdict.run(GatePolicy(), {"candidate": artifact, "champion": artifact}, world.store)
    decided = ev.reasons(same)
    assert decided.accepted and [r.rule.split()[0] for r in decided.reasons] == ["bits_per_byte", "four", "long"]
    record = json.loads(same.read("verdict.json"))
    assert (record["candidate"], record["champion"]) == (artifact.digest, artifact.digest)
    assert record["reasons"] == [vars(reason) for reason in decided.reasons]


def test_a_champion_with_another_tokenizer_is_comparable(
    world: World, listings: dict[str, Listing], artifact: Artifact
) -> None:
    champion = evaluate(world, listings, "other")
    assert any(e["type"] == "tokenized_again" for e in champion.events().read()[0])
    assert not any(e["type"] == "tokenized_again" for e in artifact.events().read()[0])
    assert ev.scores(champion).documents.keys() == ev.scores(artifact).documents.keys()
    assert champion.manifest.metrics["bits_per_byte_unigram"] == artifact.manifest.metrics["bits_per_byte_unigram"]
    verdict = ev.verdict.run(GatePolicy(), {"candidate": artifact, "champion": champion}, world.store)
    assert len(ev.reasons(verdict).reasons) == 3


def test_other_items_are_refused(world: World, listings: dict[str, Listing], artifact: Artifact) -> None:
    fewer = evaluate(world, listings, config=CONFIG.model_copy(update={"seed": 5}))
    with pytest.raises(InputError, match="score the champion again"):
        ev.verdict.run(GatePolicy(), {"candidate": artifact, "champion": fewer}, world.store)
    with pytest.raises(StoreError, match="is not an evaluation"):
        ev.verdict.run(GatePolicy(), {"candidate": world.tokens}, world.store)


ALONE = """
import socket, sys
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and not str(address[0]).startswith("127."):
        raise AssertionError(f"network: {address}")
    return real(self, address)
def look_up(host, *rest, **more):
    raise AssertionError(f"network: {host}")
socket.socket.connect, socket.getaddrinfo = connect, look_up

from stages.store import Store, load
from stages.corpus.reading.listing import list_files
from stages.evaluation import EvaluationConfig, SetConfig, evaluation
assert not {"torch", "transformers", "lm_eval", "datasets"} & set(sys.modules), "work at import"
url, model, tokens, questions = sys.argv[1:]
store = Store(url)
config = EvaluationConfig(sets={"four": SetConfig(limit=7)}, device="cpu", threads=1)
inputs = {"model": load(store, model), "tokens": load(store, tokens), "set/four": list_files(questions)}
artifact = evaluation.run(config, inputs, store)
assert artifact.manifest.counts["questions/four"] == 7
"""


def test_alone_in_a_fresh_process_it_asks_no_network_writes_elsewhere_or_prints(
    world: World, listings: dict[str, Listing], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "DO_NOT", "XDG_"))}
    env |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(REPOSITORY)}
    names = (world.models["one"].folder, world.tokens.folder, listings["set/four"].path("four.jsonl"))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, world.store.url, *names],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in home.rglob("*") if path.is_file()] == []


GENERAL = GeneralText((("speech", "the disease is rare; " * 40), ("π", "naïve " * 30)), "two texts")


def test_general_text_is_measured_beside_a_base_and_may_hold_a_model_up(
    world: World, listings: dict[str, Listing]
) -> None:
    with_general: dict[str, Any] = {**listings, "general": GENERAL}
    candidate, base = (evaluate(world, with_general, model) for model in ("one", "two"))
    scored = lines(candidate, "general.jsonl")
    assert [row["doc_id"] for row in scored] == ["speech", "π"] and all(row["nll"] > 0 for row in scored)
    total = sum(row["nll"] for row in scored) / math.log(2) / sum(row["bytes"] for row in scored)
    assert candidate.manifest.metrics["bits_per_byte_general"] == pytest.approx(total)
    columns, rows = ev.beside_base(candidate, base)
    shown = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    before, after = (one.manifest.metrics["bits_per_byte_general"] for one in (base, candidate))
    assert shown["general text"]["base"] == f"{before:.3f}" and shown["general text"]["model"] == f"{after:.3f}"
    assert shown["general text"]["change"] == f"{float(f'{after:.3f}') / float(f'{before:.3f}') - 1:+.1%}"
    assert shown["four"]["measure"].startswith("accuracy")
    inputs = {"candidate": candidate, "base": base}
    for margin, accepted in ((100.0, True), (0.0, after < before)):
        policy = GatePolicy(general_margin=margin)
        found = ev.reasons(ev.verdict.run(policy, inputs, world.store)).reasons[-1]
        assert found.rule == "general text not forgotten"
        assert found.passed or not accepted
    alone = ev.reasons(ev.verdict.run(GatePolicy(general_margin=0.01), {"candidate": candidate}, world.store))
    assert not alone.accepted and "asks for it" in alone.reasons[-1].text


def test_excerpts_are_of_one_size_and_whole_characters() -> None:
    taken = dict(GENERAL.excerpts(41, 0))
    assert taken.keys() == {"speech", "π"} and all(len(text.encode()) <= 20 for text in taken.values())
    assert dict(GENERAL.excerpts(10**6, 0)) == dict(GENERAL.documents)


def test_general_text_is_read_from_json_lines_and_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 3}\n')
    (tmp_path / "b.txt").write_text("\ufeffthree")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"text": "four"}\n')
    found = read_general(list_files(tmp_path, ev.GENERAL_FILES))
    assert dict(found.documents) == {"a.jsonl#1": "one", "a.jsonl#3": "two", "b.txt": "three", "c.jsonl.gz#1": "four"}
    for content, message in (
        (b'{"text": 1}', "line 1: no field `text`"),
        (b"\n[", "line 2: not JSON"),
        (b"\xff", "cannot be read"),
    ):
        (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_general(list_files(tmp_path, ev.GENERAL_FILES))
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(InputError, match="has no text"):
        read_general(list_files(tmp_path, ev.GENERAL_FILES))


def test_package_descriptions_are_prose_that_is_always_the_same() -> None:
    found = package_descriptions()
    assert found.digest == package_descriptions().digest and len(found.documents) > 10
    assert all(len(text) >= 500 and "```" not in text and "](" not in text for _, text in found.documents)
