"""`headwater tokens`: on runs that were killed, skipped batches, or are not finished; without shards; with damage."""

from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.forward import TerminalSink
from stages.store import (
    Artifact,
    ArtifactWriter,
    ConfigError,
    EventLog,
    HeadwaterError,
    InputError,
    Store,
    StoreError,
    write_ref,
)
from stages.tokens import TokensConfig, tokens
from stages.tokens.batch import rank_slots
from stages.training import training
from stages.training.loop import loop as loop_module
from stages.training.metrics import logger
from tests.support import training_config

STEPS, BATCH = 12, 4
WORDS = ["one", "two", "three", "four", "five"]
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "model__size": "1m",
    "data__global_batch_size": BATCH,
    "schedule__warmup_steps": 2,
    "parallelism__workers": 0,
    "parallelism__precision": "fp32",
    "checkpoint__every_steps": 4,
    "validation__every_steps": 100,
    "validation__rows": 4,
}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokens", *arguments])


def answer(*arguments: str) -> Any:
    result = ask(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(*arguments: str) -> HeadwaterError:
    result = ask(*arguments)
    assert isinstance(result.exception, HeadwaterError), result.output
    return result.exception


def make_tokens(store: Store) -> Artifact:
    """Two sources of random words, and a held-out document of each."""
    writer = ArtifactWriter(store, "corpus/random-words", "corpus", 1, "0" * 32, {}, {})
    for part, count in (("documents", 120), ("heldout", 1)):
        for source in ("alpha", "beta"):
            rng = random.Random(f"{part}/{source}")
            texts = [" ".join(rng.choices(WORDS, k=rng.randint(5, 90))) for _ in range(count)]
            columns = {
                "doc_id": [hashlib.sha256(f"{part}{source}{n}".encode()).hexdigest()[:32] for n in range(count)],
                "text": texts,
                "uri": [f"{part}/{source}.jsonl#{n}" for n in range(count)],
                "license": ["CC0-1.0"] * count,
            }
            pq.write_table(pa.table(columns), writer.file(f"{part}/{source}/00000.parquet"))
    return tokens.run(TokensConfig(vocab_size=300, sequence_length=32, workers=1), {"corpus": writer.commit()}, store)


def kill_at(number: int, run: Any, patch: pytest.MonkeyPatch) -> None:
    """Starts a run, which ends just before it computes a step."""
    real = loop_module.Loop._step

    def step(self: Any, at: int, batch: Any) -> None:
        if at == number:
            raise KeyboardInterrupt
        real(self, at, batch)

    patch.setattr(loop_module.Loop, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        run()
    patch.setattr(loop_module.Loop, "_step", real)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """`demo/training` was killed after step 9 with a checkpoint at 8, resumed, and skipped 3 and 4. Another run, of
    other phases, was killed after step 5 and is unfinished."""
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    artifact = make_tokens(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger, "EVENT_SECONDS", 0.0)
        config = training_config(**SETTINGS, recovery__skip_batches=((3, 5),))
        run = lambda: training.run(config, {"tokens": artifact}, store)  # noqa: E731
        kill_at(10, run, patch)
        done = run()
        phases = [{"steps": 8, "weights": {"alpha": 3, "beta": 1}}, {"steps": 4, "rows_per_sample": 2}]
        other = training_config(**SETTINGS, data__phases=phases)
        kill_at(6, lambda: training.run(other, {"tokens": artifact}, store), patch)
    write_ref(store, "demo", "tokens", artifact)
    write_ref(store, "demo", "training", done)
    write_ref(store, "other", "tokens", artifact)
    return store


@pytest.fixture(autouse=True)
def here(store: Store, own_installation: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_STORE", store.url)


def unfinished(store: Store) -> str:
    return next(f for f in store.folders("training") if not store.exists(f"{f}/manifest.json"))


def test_a_step_s_documents_and_state() -> None:
    assert [answer("at", "demo", str(n))["fate"] for n in range(STEPS)] == [
        *["applied"] * 3,
        *["skipped"] * 2,
        *["applied"] * 3,
        *["applied, discarded once before"] * 2,
        *["applied"] * 2,
    ]
    found = answer("at", "demo/training", "9")
    assert (found["state"], found["discarded"], found["samples"], found["rows_per_sample"]) == ("applied", 1, BATCH, 1)
    assert {line["slot"] for line in found["documents"]} == set(range(BATCH))
    assert {line["license"] for line in found["documents"]} == {"CC0-1.0"}
    for slot in range(BATCH):
        lines = [line for line in found["documents"] if line["slot"] == slot]
        ends = sum(line["offset"] + line["tokens"] == line["of"] for line in lines)
        assert sum(line["tokens"] for line in lines) + ends in (32, 33)  # the last one's EOS may come in the next row
    shown = ask("at", "demo", "9").stdout
    assert "step 9: applied, discarded once before" in shown and found["documents"][0]["uri"] in shown


def test_ranks_share_a_step_out() -> None:
    whole = answer("at", "demo", "2")["documents"]
    for ranks in (1, 2, 3):
        parts = [answer("at", "demo", "2", "--rank", str(rank), "--ranks", str(ranks)) for rank in range(ranks)]
        assert sorted((line for part in parts for line in part["documents"]), key=lambda line: line["slot"]) == whole
        for rank, part in enumerate(parts):
            assert {line["slot"] for line in part["documents"]} == set(rank_slots(BATCH, rank, ranks).tolist())
    assert answer("at", "demo", "2", "--rank", "0")["documents"] == whole  # one process trained


def test_a_document_s_steps_are_those_that_list_it() -> None:
    batches = [answer("at", "demo", str(n)) for n in range(STEPS)]
    for uri in {d["uri"] for step in (3, 9) for d in batches[step]["documents"]}:
        found = answer("where", "demo", uri)
        listed = [(b["step"], d["slot"], d["offset"]) for b in batches for d in b["documents"] if d["uri"] == uri]
        assert [(line["step"], line["slot"], line["offset"]) for line in found["steps"]] == sorted(listed) != []
        assert [line["state"] for line in found["steps"]] == [batches[line["step"]]["state"] for line in found["steps"]]
        assert answer("where", "demo", found["documents"][0]["doc_id"]) == found
        shown = ask("where", "demo", uri).stdout
        assert uri in shown and "CC0-1.0" in shown


def test_a_held_out_document_is_in_no_step() -> None:
    found = answer("where", "demo", "heldout/alpha.jsonl#0")
    assert found["steps"] == [] and [line["held_out"] for line in found["documents"]] == [True]
    shown = ask("where", "demo", "heldout/alpha.jsonl#0").stdout
    assert "held out: no step reads it" in shown


def test_an_unfinished_run_is_traced_too(store: Store) -> None:
    folder = unfinished(store)
    for name in (folder, folder.removeprefix("training/"), folder[:-3], "other"):
        assert [answer("at", name, str(n))["state"] for n in (0, 5, 6, 11)] == ["applied"] * 2 + ["not reached"] * 2
    assert answer("at", folder, "9")["rows_per_sample"] == 2
    assert answer("plan", folder)["segments"][1]["rows_per_sample"] == 2


def test_no_shard_is_read(store: Store) -> None:
    asked = [("at", "demo", "7"), ("where", "demo", "documents/alpha.jsonl#3"), ("plan", "demo/training")]
    before = [answer(*arguments) for arguments in asked]
    shards = [*Path(store.root).glob("tokens/*/shards/*/*.arrow")]
    assert shards
    for path in shards:
        path.rename(path.with_suffix(".away"))
    try:
        assert [answer(*arguments) for arguments in asked] == before
    finally:
        for path in shards:
            path.with_suffix(".away").rename(path)


def test_the_plan_is_shown_before_the_run_and_on_demand(store: Store) -> None:
    events = EventLog(store, unfinished(store)).read()[0]
    kinds = [event["type"] for event in events]
    assert kinds.index("plan") < kinds.index("workers")
    plan = answer("plan", unfinished(store))
    assert events[kinds.index("plan")]["plan"] == plan
    assert [(s["phase"], s["first_position"], s["samples"], s["rows_per_sample"]) for s in plan["segments"]] == [
        (0, 0, 32, 1),
        (1, 32, 16, 2),
    ]
    share = plan["segments"][0]["sources"]["alpha"]["samples"] / 32
    assert plan["segments"][0]["sources"]["alpha"]["share"] == share and 0.6 < share < 0.9

    screen = io.StringIO()
    TerminalSink("training", Console(file=screen, width=120)).consume(events, 0)
    shown = ask("plan", unfinished(store)).stdout
    for text in (screen.getvalue(), shown):
        lines = [line.split() for line in text.splitlines()]
        assert ["0", "0", "1", "alpha", f"{share:.1%}"] in [line[:5] for line in lines]
        assert ["1", "8", "2", "alpha"] in [line[:4] for line in lines]


def test_a_recipe_s_plan_needs_its_tokens() -> None:
    error = failure("plan", "biomed")
    assert isinstance(error, StoreError) and "sample would run" in str(error) and "headwater run biomed" in str(error)
    assert isinstance(failure("plan", "demo/training", "--set", "training.steps=2"), ConfigError)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.data.weights={a: -1}", "training.data.weights: source 'a' has -1"),
        ("training.data.weights={a: .nan}", "training.data.weights: source 'a' has nan"),
        ("training.data.weights={a: 0}", "training.data.weights: all weights are 0"),
        ("training.data.phases=[{steps: 900, repeat: 0}]", "training.data.phases.0.repeat: it is 0"),
        (
            "training.data.streams=3",
            "training.data.global_batch_size (16) is not a multiple of training.data.streams (3)",
        ),
    ],
)
def test_an_invalid_mixture_is_refused_by_field(setting: str, message: str) -> None:
    error = failure("plan", "biomed", "--set", setting)
    assert isinstance(error, ConfigError) and message in str(error)


def test_unknown_steps_ranks_and_names_are_reported() -> None:
    assert "steps 0 to 11, not 12" in str(failure("at", "demo", "12"))
    assert "ranks 0 to 0, not by rank 1" in str(failure("at", "demo", "1", "--rank", "1"))
    assert "no artifact 'nothing'" in str(failure("at", "nothing", "1"))
    assert "is a training artifact" in str(failure("at", "demo/tokens", "1"))
    assert isinstance(failure("where", "demo", "nothing"), InputError)


def test_verify_names_the_file_and_fails(store: Store) -> None:
    for name in ([], ["demo"], ["demo/training"]):
        result = ask("verify", *name)
        assert result.exit_code == 0 and "compared with corpus/" in result.stdout, result.output
        assert "no errors" in result.stdout
    shard = next(Path(store.root).glob("tokens/*/shards/beta/00000.arrow"))
    good = shard.read_bytes()
    try:
        shard.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
        result = ask("verify", "demo")
        assert result.exit_code == 1
        assert f"{shard}: sha256: differs from shards.parquet" in result.stderr
        assert ": 1 error" in result.stdout
        (shown,) = json.loads(ask("verify", "--json").stdout)
        assert [(f["file"], f["field"]) for f in shown["findings"]] == [("shards/beta/00000.arrow", "sha256")]
    finally:
        shard.write_bytes(good)


def test_verify_works_without_the_corpus(store: Store) -> None:
    manifest = Path(store.root) / "corpus/random-words/manifest.json"
    aside = manifest.rename(manifest.with_suffix(".aside"))
    try:
        result = ask("verify", "demo")
        assert result.exit_code == 0 and "its corpus is missing" in result.stdout
    finally:
        aside.rename(manifest)
