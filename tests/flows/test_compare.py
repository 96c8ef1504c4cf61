"""`headwater runs` and `headwater compare`: runs in every state, what differs between two, and their curves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.compare import compare, losses_at_equal_tokens
from flows.compare_page import comparison_page
from flows.histories import curves, held_out, overview_rows, overviews
from flows.runs import find_run
from stages.store import Artifact, ArtifactWriter, ConfigError, EventLog, Store, StoreError, canonical, write_ref
from stages.store.lease import Lease
from stages.training.metrics.history import STEPS, VALIDATIONS
from stages.training.metrics.phase_clock import PHASES
from stages.training.preflight.plan import PLAN
from tests.support import training_config

BATCH_TOKENS = 100


def put(store: Store, kind: str, number: int, config: dict[str, Any], inputs: dict[str, str], **files: Any) -> Artifact:
    whole = (
        training_config(schedule__warmup_steps=0, **config).model_dump(mode="json") if kind == "training" else config
    )
    canon = canonical(training_config(schedule__warmup_steps=0, **config)) if kind == "training" else config
    writer = ArtifactWriter(
        store, f"{kind}/{number:016}", kind, 1, f"{number:064}", canon, inputs, resolved_config=whole
    )
    writer.put("number", str(number).encode())
    for name, table in files.items():
        pq.write_table(table, writer.file(name.replace("_parquet", ".parquet")))
    if kind == "training":
        writer.counts["tokens"] = config["steps"] * BATCH_TOKENS
        writer.metrics.update(loss=2.0 + number, bits_per_byte=1.0 + number, tokens_per_second=1000.0 * number)
    return writer.commit()


def history(losses: list[float]) -> pa.Table:
    steps = np.arange(len(losses))
    known = {"step": steps, "tokens": (steps + 1) * BATCH_TOKENS, "loss": losses, "seconds": (steps + 1) / 2}
    return pa.table({name: known.get(name, np.ones(len(losses))) for name in STEPS.names})


def validation(*found: tuple[int, dict[str, float]]) -> pa.Table:
    """Of (step, bits per byte by source); of all it is 2."""
    lines = []
    for step, by_source in found:
        for source, value in {None: 2.0, **by_source}.items():
            seconds = {"tokens": step * BATCH_TOKENS, "seconds": step / 2}
            lines.append({"step": step, "source": source, "bits_per_byte": value, **seconds})
    return pa.Table.from_pylist(lines, schema=VALIDATIONS)


def write_events(store: Store, folder: str, tokens: Artifact, losses: list[float], **config: Any) -> EventLog:
    """An unfinished run with the events of some of its steps."""
    log = EventLog(store, folder)
    settings = training_config(schedule__warmup_steps=0, **config).model_dump(mode="json")
    log.emit(PLAN, durable=True, tokens=tokens.folder, digest=tokens.digest, config=settings, plan={})
    for step, loss in enumerate(losses):
        rest = dict.fromkeys(("grad_norm", "learning_rate", "tokens_per_second"), 1.0)
        log.emit("step", step=step, loss=loss, tokens=(step + 1) * BATCH_TOKENS, steps=config["steps"], **rest)
    log.flush()
    return log


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def tokens(store: Store) -> tuple[Artifact, Artifact]:
    """Two, of corpora from the same source that differ in a setting."""
    corpora = [put(store, "corpus", n, {"dedup": {"bands": 8 + n}}, {"source/notes": "s" * 64}) for n in (1, 2)]
    one, two = (put(store, "tokens", n, {"vocabulary": 300}, {"corpus": corpora[n - 1].digest}) for n in (1, 2))
    return one, two


def test_runs_are_listed_with_their_states(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    done = put(store, "training", 1, {"steps": 3}, {"tokens": tokens[0].digest}, loss_parquet=history([3, 2, 1]))
    write_ref(store, "biomed", "training", done)
    stopped = write_events(store, "training/stopped", tokens[0], [5.0, 4.5], steps=9, model__size="1m")
    stopped.emit("stopped", durable=True, step=2)
    failed = write_events(store, "training/failed", tokens[0], [5.0], steps=9)
    failed.emit("failed", durable=True, error="StoreError: away")
    write_events(store, "training/left", tokens[0], [], steps=9)
    write_events(store, "training/going", tokens[0], [4.0], steps=9)
    store.put("training/nothing/lease-1", b"{}")
    with Lease(store, "training/going"):
        found = {run.folder: run for run in overviews(store)}
    assert {folder: run.state for folder, run in found.items()} == {
        done.folder: "finished",
        "training/stopped": "stopped",
        "training/failed": "failed",
        "training/left": "unfinished",
        "training/going": "running",
    }
    rows = {row["run"]: row for row in overview_rows(store)}
    line = rows[f"training/{done.digest[:12]}"]
    assert (line["ref"], line["step"], line["loss"], line["tokens"]) == ("biomed/training", "3/3", 3.0, 300)
    line = rows["training/stopped"]
    assert (line["step"], line["loss"], line["tokens"], line["size"]) == ("2/9", 4.5, 200, "1m")
    assert rows["training/left"]["step"] == "0/9" and rows["training/left"]["loss"] is None


def test_what_differs_is_named_back_to_the_corpus(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    one = put(store, "training", 1, {"steps": 4}, {"tokens": tokens[0].digest}, loss_parquet=history([4, 3, 2, 1]))
    settings = {"steps": 2, "optimizer__lr": 0.01, "parallelism__workers": 1}
    two = put(store, "training", 2, settings, {"tokens": tokens[1].digest}, loss_parquet=history([5, 3]))
    for name in (one.folder, store.where(one.folder), f"{store.where(one.folder)}/", f"{store.url}/{one.folder}"):
        assert find_run(store, name).folder == one.folder
    found = compare(store, find_run(store, one.id), find_run(store, two.id))
    assert found.names == (one.id, two.id)
    assert found.differences == [
        "training.optimizer.lr: none -> 0.01",
        "training.steps: 4 -> 2",
        f"tokens: {tokens[0].digest[:12]} -> {tokens[1].digest[:12]}",
        "corpus.dedup.bands: 9 -> 10",
    ]
    ends = {row["what"]: row for row in found.ends}
    assert ends["tokens"] == {"what": "tokens", "first": 400, "second": 200, "ratio": 0.5}
    assert ends["bits_per_byte"]["first"] == 2.0 and ends["model_flops_utilization"]["ratio"] is None
    assert found.losses[-1]["tokens"] == 200
    json.dumps(found.as_dict())


def test_an_unfinished_run_is_compared_by_its_events(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    one = put(store, "training", 1, {"steps": 4}, {"tokens": tokens[0].digest}, loss_parquet=history([4, 3, 2, 1]))
    log = write_events(store, "training/going", tokens[0], [4.0, 9.0], steps=4, seed=1)
    log.emit("restart", durable=True, step=1)
    rest = dict.fromkeys(("grad_norm", "learning_rate", "tokens_per_second"), 1.0)
    log.emit("step", step=1, loss=3.5, tokens=200, steps=4, **rest)
    log.flush()
    assert curves(store, "training/going")["loss"].tolist() == [4.0, 3.5]
    found = compare(store, find_run(store, one.id), find_run(store, "training/going"))
    assert found.differences == ["training.seed: 0 -> 1"]
    write_events(store, "training/new", tokens[0], [], steps=4)
    with pytest.raises(StoreError, match=r"training/new has recorded no step yet"):
        compare(store, find_run(store, one.id), find_run(store, "training/new"))


def test_validations_are_compared_by_source(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    files = {"loss_parquet": history([4, 3, 2, 1]), "validation_parquet": validation((2, {"a": 3.0}), (4, {"a": 1.5}))}
    one = put(store, "training", 1, {"steps": 4}, {"tokens": tokens[0].digest}, **files)
    log = write_events(store, "training/going", tokens[0], [4.0, 9.0], steps=4, seed=1)
    log.emit("validation", step=2, tokens=200, seconds=7.0, bits_per_byte=9.0, by_source={"a": 9.0})
    log.emit("restart", durable=True, step=1)
    log.emit("validation", step=2, tokens=200, seconds=2.0, bits_per_byte=3.0, by_source={"a": 2.0, "b": 4.0})
    found = held_out(store, one.folder)
    assert (found.step.tolist(), found.seconds.tolist()) == ([2, 4], [1.0, 2.0])
    assert found.bits_per_byte.tolist() == [2.0, 2.0] and found.by_source["a"].tolist() == [3.0, 1.5]
    compared = compare(store, find_run(store, one.id), find_run(store, "training/going"))
    assert compared.validations[1].seconds.tolist() == [2.0]
    assert compared.held_out == [
        {"source": "all", "first": 2.0, "second": 3.0, "difference": 1.0},
        {"source": "a", "first": 1.5, "second": 2.0, "difference": 0.5},
        {"source": "b", "first": None, "second": 4.0, "difference": None},
    ]
    assert compared.times == [], "an unfinished run has events of some steps only"


def test_where_the_time_went(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    inputs = {"tokens": tokens[0].digest}
    one = put(store, "training", 1, {"steps": 4}, inputs, loss_parquet=history([4, 3, 2, 1]))
    two = put(store, "training", 2, {"steps": 2}, inputs, loss_parquet=history([4, 3]))
    rows = compare(store, find_run(store, one.id), find_run(store, two.id)).times
    found = {row["phase"]: (row["first"], row["second"]) for row in rows}
    assert found.keys() == {*PHASES, "stall", "whole"}
    assert [row["phase"] for row in rows][:5] == ["forward", "backward", "optimizer", "stall", "whole"]
    assert found["forward"] == (4.0, 2.0) and found["whole"] == (2.0, 1.0)


def test_a_run_of_an_earlier_version_is_compared_by_what_it_has(
    store: Store, tokens: tuple[Artifact, Artifact]
) -> None:
    inputs = {"tokens": tokens[0].digest}
    old = ["step", "loss", "learning_rate", "tokens_per_second", "grad_norm", "tokens"]
    one = put(store, "training", 1, {"steps": 4}, inputs, loss_parquet=history([4, 3, 2, 1]).select(old))
    EventLog(store, one.folder).emit("validation", step=4, bits_per_byte=2.5)
    two = put(store, "training", 2, {"steps": 2}, inputs, loss_parquet=history([4, 3]))
    found = compare(store, find_run(store, one.id), find_run(store, two.id))
    assert found.times == [] and found.held_out == [{"source": "all", "first": 2.5, "second": None, "difference": None}]
    assert np.isnan(found.validations[0].seconds).all()
    assert "<svg" in comparison_page(found)


def test_losses_are_means_at_equal_tokens() -> None:
    first = {"tokens": np.arange(1, 101) * 10, "loss": np.arange(100, 0, -1.0)}
    second = {"tokens": np.arange(1, 31) * 20, "loss": np.full(30, 7.0)}
    found = losses_at_equal_tokens(first, second, points=3)
    assert [line["tokens"] for line in found] == [200, 400, 600]
    assert [line["first"] for line in found] == [90.5, 70.5, 50.5]
    assert [line["difference"] for line in found] == [-83.5, -63.5, -43.5]
    rare = {"tokens": np.array([600]), "loss": np.array([1.0])}
    assert [line["second"] for line in losses_at_equal_tokens(first, rare, points=3)] == [None, None, 1.0]


def test_the_page_is_complete_and_escapes_names(store: Store, tokens: tuple[Artifact, Artifact]) -> None:
    one = put(store, "training", 1, {"steps": 4}, {"tokens": tokens[0].digest}, loss_parquet=history([4, 3, 2, 1]))
    write_events(store, "training/going", tokens[0], [4.0], steps=4, data__weights={"<b>&": 1.0})
    page = comparison_page(compare(store, find_run(store, one.id), find_run(store, "training/going")))
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page
    tree = ET.fromstring(page.removeprefix("<!doctype html>\n").replace('<meta charset="utf-8">', ""))
    assert len(tree.findall(".//table")) == 2 and "script" not in page
    assert not [value for element in tree.iter() for value in element.attrib.values() if value.startswith("http")]


def test_the_commands(store: Store, tokens: tuple[Artifact, Artifact], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HEADWATER_STORE", str(tmp_path))
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "home"))
    empty = CliRunner().invoke(app, ["runs"])
    assert empty.exit_code == 0 and "no training run yet" in empty.stderr
    one = put(store, "training", 1, {"steps": 4}, {"tokens": tokens[0].digest}, loss_parquet=history([4, 3, 2, 1]))
    two = put(store, "training", 2, {"steps": 3}, {"tokens": tokens[0].digest}, loss_parquet=history([4, 2, 1]))
    listed = CliRunner().invoke(app, ["runs", "--json"])
    assert {row["run"] for row in json.loads(listed.stdout)} == {f"training/{a.digest[:12]}" for a in (one, two)}
    page = tmp_path / "page.html"
    shown = CliRunner().invoke(app, ["compare", one.id, two.id, "--html", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "training.steps: 4 -> 3" in shown.stdout and str(page.name) in shown.stdout.replace("\n", "")
    assert "<svg" in page.read_text()
    nowhere = CliRunner().invoke(app, ["compare", one.id, two.id, "--html", str(tmp_path / "no" / "page.html")])
    assert isinstance(nowhere.exception, ConfigError) and "cannot write" in str(nowhere.exception)
    unknown = CliRunner().invoke(app, ["compare", one.id, "training/none"])
    assert isinstance(unknown.exception, StoreError)
