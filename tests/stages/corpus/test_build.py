"""The whole stage: it adds up, it does not depend on how it runs, and it does what was planted for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stages.corpus import CorpusConfig, corpus, inputs_of, list_files, sources_in, summary_rows
from stages.corpus.texts import text_hash
from stages.sample.biomed import generate
from stages.store import Artifact, HeadwaterError, InputError, Store
from tests.stages.corpus.corpus_world import rows_of, sentence, write_lines
from tests.stages.corpus.planted_recall import measure
from tests.support import SHARED, examples

Run = Callable[..., Artifact]


def check_account(artifact: Artifact) -> None:
    """In = kept + held out + removed + quarantined, by the files themselves and by what is printed."""
    counts = artifact.manifest.counts
    documents, heldout = rows_of(artifact, "documents/"), rows_of(artifact, "heldout/")
    removed = rows_of(artifact, "removed/")
    quarantined = artifact.read("quarantine.jsonl").splitlines()
    assert counts["in"] == len(documents) + len(heldout) + len(removed) + len(quarantined)
    assert (counts["kept"], counts["heldout"], counts["removed"]) == (len(documents), len(heldout), len(removed))
    columns, rows = summary_rows(artifact)
    assert artifact.manifest.details["table"] == {"columns": columns, "rows": rows}
    for values in rows:
        named = dict(zip(columns, values, strict=True))
        parts = [value for name, value in named.items() if name not in ("source", "in") and "_in" not in name]
        assert named["in"] == sum(parts[:-2])
    stay = {(row["source"], row["uri"]) for row in [*documents, *heldout]}
    assert len(stay) == len(documents) + len(heldout)
    assert not stay & {(row["source"], row["uri"]) for row in removed}
    ids = {row["doc_id"] for row in [*documents, *heldout]}
    for row in removed:
        if row["rule"] in ("exact_duplicate", "near_duplicate"):
            assert row["value"] >= row["threshold"]
        assert bool(row["survivor"]) == (row["rule"] in ("exact_duplicate", "near_duplicate"))
        if row["rule"] == "near_duplicate":
            assert row["survivor"] in ids
    assert not {row["group"] for row in documents} & {row["group"] for row in heldout}
    for row in [*documents, *heldout]:
        assert row["text_hash"] == text_hash(row["text"])
        if not row["steps"]:
            assert row["doc_id"] == text_hash(row["text"])


record = st.one_of(
    st.builds(
        lambda n, tail, group, license: {
            "text": sentence(n) + tail,
            "title": group,
            "license": license,
            "id": n,
        },
        st.integers(0, 8),
        st.sampled_from(
            ["", "  ", " And one more.", " Write to a@example.org.", "\n\nShare this page with everybody."]
        ),
        st.sampled_from(["One", "ONE", "two", "three", ""]),
        st.sampled_from(["MIT", "CC BY 4.0", None, "secret"]),
    ),
    st.sampled_from([b"{", b'{"text": 1}', b'{"text": "short"}']),
)
sources = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.sampled_from(["x.jsonl", "y.jsonl.gz", "z/w.jsonl"]), st.lists(record, max_size=12), min_size=1),
    min_size=1,
)


@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sources, st.sampled_from([0.0, 0.3]))
def test_it_adds_up_wherever_it_lies(tmp_path: Path, content: dict[str, Any], heldout: float) -> None:
    digests: list[Any] = []
    for place in ("first", "second/deeper"):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        names = list(content) if place == "first" else list(reversed(content))
        for name in names:
            for file, rows in content[name].items():
                write_lines(tmp_path / place / name / file, rows)
        config = CorpusConfig.model_validate(
            {
                "sources": {name: {"location": str(tmp_path / place / name)} for name in names},
                "policy": {"denied_licenses": ["secret"]},
                "heldout_fraction": heldout,
                "maximum_unreadable_fraction": 1.0,
                "workers": 1,
            }
        )
        try:
            artifact = corpus.run(config, inputs_of(config), Store(tmp_path / "store"))
        except InputError as error:  # nothing readable, or nothing left
            digests.append(str(error).replace(str(tmp_path / place), ""))
            continue
        check_account(artifact)
        digests.append((artifact.fingerprint, artifact.digest))
    assert digests[0] == digests[1]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    generate(folder, seed=5, megabytes=1.0)
    return folder


def sample_config(folder: Path, workers: int) -> CorpusConfig:
    return CorpusConfig.model_validate(
        {
            "sources": sources_in(str(folder / "documents")),
            "policy": {"denied_licenses": ["LicenseRef-proprietary"]},
            "decontamination": {"sets": {path.stem: str(path) for path in (folder / "eval").glob("*.jsonl")}},
            "workers": workers,
        }
    )


@pytest.fixture(scope="module")
def made(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = sample_config(sample, 1)
    return corpus.run(config, inputs_of(config), Store(tmp_path_factory.mktemp("store")))


def test_the_sample_adds_up(made: Artifact) -> None:
    check_account(made)


def workers_of(process: psutil.Process) -> set[psutil.Process]:
    """The worker processes below a process."""
    found = set()
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("spawn_main" in part for part in child.cmdline()):
                found.add(child)
    return found


def test_two_workers_make_the_same_and_leave_nothing_behind(made: Artifact, sample: Path, tmp_path: Path) -> None:
    before = workers_of(psutil.Process())
    config = sample_config(sample, 2)
    again = corpus.run(config, inputs_of(config), Store(tmp_path / "other"))
    assert (again.fingerprint, again.digest) == (made.fingerprint, made.digest)
    assert not [child for child in workers_of(psutil.Process()) if child not in before]
    assert not (tmp_path / "other" / again.folder / ".scratch").exists()
    progress = [event for event in again.events().read()[0] if event["type"] == "progress"]
    for name in ("read", "judge", "write"):
        done = [(event["done"], event["total"]) for event in progress if event["pass_name"] == name]
        assert done[-1][0] == done[-1][1] and done == sorted(done)


def test_what_was_planted_is_found(made: Artifact, sample: Path) -> None:
    table = measure(made, sample / "truth.jsonl")
    found = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    recall = {
        "exact_duplicate": 1.0,
        "near_duplicate": 0.95,
        "language": 0.95,
        "contaminated": 1.0,
        "junk": 0.9,
        "boilerplate": 0.8,
        "personal_data": 0.97,
    }
    assert set(found) == set(recall)
    for kind, floor in recall.items():
        assert found[kind]["planted"] > 0
        assert found[kind]["recall"] >= floor, (kind, found[kind])
        assert found[kind]["precision"] >= 0.9, (kind, found[kind])


def test_policy_is_attributed_first_and_text_stays_out_of_the_ledger(made: Artifact) -> None:
    removed = rows_of(made, "removed/")
    assert {row["rule"] for row in removed if row["source"] == "synthetic_forum"} == {"policy_license"}
    assert not made.files("documents/synthetic_forum/")
    assert set(removed[0]) == {"doc_id", "uri", "source", "rule", "value", "threshold", "detail", "survivor"}
    assert all(len(row["detail"]) < 120 for row in removed)


def test_pages_from_one_template_about_different_subjects_stay(tmp_path: Path, run: Run) -> None:
    body = sentence(3, 90)
    rows = [{"title": name, "text": f"Is {name} inherited? {body}"} for name in ("Roberts syndrome", "Banki syndrome")]
    rows.append({"title": "Roberts syndrome", "text": f"Is Roberts syndrome inherited, then? {body}"})
    write_lines(tmp_path / "in" / "x.jsonl", rows)
    protected = run({"s": tmp_path / "in"}, heldout_fraction=0)
    (gone,) = rows_of(protected, "removed/")
    assert gone["rule"] == "near_duplicate" and gone["detail"] == "s/x.jsonl#3" and gone["uri"] == "x.jsonl#1"
    plain = run({"s": tmp_path / "in"}, heldout_fraction=0, dedup={"protect_subjects": False})
    assert plain.manifest.counts["removed_near_duplicate"] == 2


def test_copies_across_sources_go_by_priority(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "a" / "x.jsonl", [{"text": sentence(1)}, {"text": f"{sentence(2, 90)} One more."}])
    write_lines(tmp_path / "b" / "x.jsonl", [{"text": f" {sentence(1)}\n"}, {"text": sentence(2, 90)}])
    first = {"location": str(tmp_path / "b"), "priority": -1}
    artifact = run({"a": tmp_path / "a", "b": first}, heldout_fraction=0)
    gone = {(row["source"], row["uri"]): row["rule"] for row in rows_of(artifact, "removed/")}
    assert gone == {("a", "x.jsonl#1"): "exact_duplicate", ("a", "x.jsonl#2"): "near_duplicate"}


def test_steps_scores_and_fields_of_a_document(tmp_path: Path, run: Run) -> None:
    row = {
        "text": f"Caf\u0065\u0301. {sentence(1)} Write to jane@example.org.",
        "title": "Coffee",
        "url": "http://x.example/1",
        "license": "CC BY 4.0",
        "retrieved_at": "2024-05-06",
        "id": 1,
    }
    write_lines(tmp_path / "in" / "x.jsonl", [row, {**row, "text": sentence(2)}])
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    document, _ = rows_of(artifact, "documents/")
    assert document["text"].startswith("Café. ") and document["text"].endswith("Write to [EMAIL].")
    assert document["steps"] == ["nfc", "personal_data"]
    assert (document["license"], document["retrieved_at"], document["group"]) == ("CC-BY-4.0", "2024-05-06", "coffee")
    assert document["language"] == "en" and document["scores"]["language"] > 0.3
    summary = json.loads(artifact.read("summary.json"))
    assert summary["repeated_ids"] == {"s": 1} and summary["edits"] == {"email": 1}
    assert any(e["type"] == "warning" for e in run({"s": tmp_path / "in"}, seed=4).events().read()[0])


GOLDEN = "e6fff94bdcefc75f"
"""Changes only with the stage's version: another output under one version would be taken for the old one."""


def test_output_changes_only_with_the_version(tmp_path: Path, run: Run) -> None:
    rows: list[dict[str, Any]] = [
        {"id": i, "title": f"subject {i % 19}", "license": "CC BY 4.0", "text": f"{sentence(i, 60)} MRN 12345{i:02}."}
        for i in range(30)
    ]
    rows += [{"title": "copy", "text": f"{sentence(3, 60)}  MRN 1234503."}, {"title": "x", "text": "Too short."}]
    rows += [{"title": "subject 4", "text": f"{sentence(4, 60)} Some words are new here."}]
    exam = write_lines(tmp_path / "exam.jsonl", [{"id": 1, "question": sentence(5)}])
    write_lines(tmp_path / "in" / "x.jsonl.gz", [*rows, b"{"])
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0.3, decontamination={"sets": {"exam": str(exam)}})
    parts = {part: rows_of(artifact, f"{part}/") for part in ("documents", "heldout", "removed")}
    assert all(parts.values())
    for row in [*parts["documents"], *parts["heldout"]]:
        del row["scores"]  # floats of another library
    assert {row["rule"] for row in parts["removed"]} == {
        "exact_duplicate",
        "quality_short",
        "near_duplicate",
        "contaminated",
    }
    content = json.dumps([corpus.version, parts], sort_keys=True).encode()
    assert hashlib.sha256(content).hexdigest()[:16] == GOLDEN


def test_nothing_left_is_an_error(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [{"text": "Short."}])
    with pytest.raises(InputError, match=r"none of 1 documents is kept.*quality_short"):
        run({"s": tmp_path / "in"})


def test_source_names_must_be_file_names() -> None:
    with pytest.raises(ValueError, match="source name"):
        CorpusConfig.model_validate({"sources": {"../x": {"location": "/x"}}})


def test_how_does_not_change_the_plan(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.jsonl", [{"text": "a"}])
    listing = {"source/s": list_files(tmp_path / "x.jsonl")}
    store = Store(tmp_path / "store")

    def name(**fields: Any) -> str:
        source = {"location": fields.pop("location", "/x")}
        return corpus.plan(
            CorpusConfig.model_validate({"sources": {"s": source}, **fields}), listing, store
        ).fingerprint

    assert name() == name(workers=7) == name(location="/y")
    assert len({name(), name(seed=1), name(heldout_fraction=0.5), name(edits={"personal_data": {}})}) == 4


def test_a_killed_worker_is_an_error_not_a_hang(sample: Path, tmp_path: Path) -> None:
    config = sample_config(sample, 2)
    stop = threading.Event()

    def kill_one() -> None:
        while not stop.wait(0.01):
            children = multiprocessing.active_children()
            if children:
                os.kill(children[0].pid or 0, signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with pytest.raises(HeadwaterError, match="worker process was killed"):
            corpus.run(config, inputs_of(config), Store(tmp_path / "store"))
    finally:
        stop.set()
        killer.join()
    assert not multiprocessing.active_children()


# No guard around the run on purpose: workers must not import the main module.
SCRIPT = """
import sys
from stages.store import Store
from stages.corpus import CorpusConfig, corpus, inputs_of
config = CorpusConfig.model_validate_json(sys.argv[1])
corpus.run(config, inputs_of(config), Store(sys.argv[2]))
"""


def test_workers_end_with_their_parent(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    arguments = [sample_config(sample, 3).model_dump_json(), str(tmp_path / "store")]
    parent = psutil.Popen([sys.executable, str(tmp_path / "run.py"), *arguments])
    try:
        workers: set[psutil.Process] = set()
        deadline = time.monotonic() + 200
        while len(workers) < 2 and time.monotonic() < deadline:
            assert parent.poll() is None, "the run ended before its workers were seen"
            workers = workers_of(parent)
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=30)
    for worker in alive:
        worker.kill()
    assert not alive


@pytest.mark.skipif(
    not (SHARED / "medquad").is_dir(), reason="real pages were not read: MedQuAD is not beside this repository"
)
def test_real_pages_mostly_stay(tmp_path: Path, run: Run) -> None:
    names = ("CDC", "NINDS", "NIDDK")
    artifact = run({name: SHARED / "medquad" / f"{name}.jsonl.gz" for name in names})
    check_account(artifact)
    counts = artifact.manifest.counts
    assert counts["in"] == 2550 and counts["quarantined"] == 0
    assert counts["removed_exact_duplicate"] == 48
    assert counts["removed"] - counts["removed_exact_duplicate"] < 0.05 * counts["in"]
    assert counts["heldout"] > 0
