"""Own documents and question sets, wherever they lie: found, read, made into a corpus; refused with the parameter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest

from flows.inputs import resolve_recipe
from flows.steps import STEP, RunArtifacts, list_inputs
from stages.evaluation.sets import read_set
from stages.store import Artifact, ConfigError, InputError, Store, read_ref, write_ref
from tests.flows.test_steps import question, text
from tests.support import ObjectStore


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a person's files may lie."""
    if request.param == "file":
        return str(tmp_path / "mine")
    return f"memory://{tmp_path.name}" if request.param == "memory" else f"{request.getfixturevalue('bucket')}/mine"


def put(place: str, name: str, content: str) -> None:
    fs, root = fsspec.core.url_to_fs(place)
    fs.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(f"{root}/{name}", content.encode())


def fill(place: str) -> None:
    for number in range(3):
        put(place, f"data/notes/{number}.txt", text(f"note {number}"))
    rows = [{"text": text(f"letter {number}"), "license": "CC0-1.0"} for number in range(3)]
    put(place, "data/letters.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    put(place, "eval/exam.jsonl", question("exam"))
    put(place, "eval/exam_train.jsonl", question("train"))


def corpus(place: str, store: Store, workers: int = 1) -> tuple[Artifact, RunArtifacts]:
    recipe, _ = resolve_recipe("biomed", f"{place}/data", f"{place}/eval", [f"corpus.workers={workers}"])
    made = RunArtifacts()
    list_inputs(recipe, made)
    step = STEP["corpus"]
    artifact = step.stage.run(step.config(recipe, made), step.inputs(recipe, made), store)
    write_ref(store, recipe.name, "corpus", artifact)
    return artifact, made


def test_documents_and_sets_may_lie_anywhere(place: str, tmp_path: Path) -> None:
    fill(place)
    recipe, notes = resolve_recipe("biomed", f"{place}/data", f"{place}/eval")
    assert recipe.name == "biomed+data"
    assert sorted(recipe.corpus.sources) == ["letters", "notes"]
    assert recipe.corpus.sources["letters"].fields.license == "license"
    assert list(recipe.evaluation_sets) == ["exam", "exam_train"]
    assert any("question sets" in note and "exam, exam_train" in note for note in notes)
    store = Store(tmp_path / "store")
    # On an object store by two processes, which have connections of their own.
    made_of, made = corpus(place, store, workers=2 if place.startswith("s3://") else 1)
    assert made_of.manifest.counts["kept"] == 6
    assert [each.question for each in read_set(made.sets["exam"]).questions] == [text("exam")]

    local = str(tmp_path / "local")
    fill(local)
    assert corpus(local, Store(tmp_path / "other"))[0].digest == made_of.digest, "place is how, content is what"

    put(place, "data/notes/1.txt", text("another"))
    again, _ = corpus(place, store)
    assert again.digest != made_of.digest
    assert read_ref(store, "biomed+data", "corpus") == again
    put(place, "data/notes/1.txt", text("note 1"))
    assert corpus(place, store)[0] == made_of, "content decides, not when it was written"


def test_an_object_store_that_goes_away_ends_the_run(bucket: str, object_store: ObjectStore, tmp_path: Path) -> None:
    """A connection that breaks is no damaged file: a corpus without it would have the name of the whole one."""
    fill(f"{bucket}/mine")
    recipe, _ = resolve_recipe("biomed", f"{bucket}/mine/data", None, ["corpus.workers=1"])
    made, store, step = RunArtifacts(), Store(tmp_path / "store"), STEP["corpus"]
    list_inputs(recipe, made)
    object_store.stop()
    try:
        with pytest.raises(InputError, match=r"s3://.*AWS_ENDPOINT_URL"):
            step.stage.run(step.config(recipe, made), step.inputs(recipe, made), store)
        with pytest.raises(InputError, match=r"^data: s3://.*cannot be listed"):
            resolve_recipe("biomed", f"{bucket}/mine/data")
    finally:
        object_store.start()
    assert not [name for name in store.list("corpus") if name.endswith("manifest.json")]
    again = step.stage.run(step.config(recipe, made), step.inputs(recipe, made), store)
    assert again.manifest.counts["kept"] == 6


@pytest.mark.parametrize(
    ("data", "evaluation_data", "message"),
    [
        ("some/folder", "", "data: 'some/folder' is a relative path"),
        ("{place}/data", "some/folder", "evaluation_data: 'some/folder' is a relative path"),
        ("", "{place}/eval", "evaluation_data: give it together with data"),
        ("{place}/none", "", "data: .*none does not exist"),
        ("{place}/data", "{place}/none", "evaluation_data: .*none does not exist"),
        ("{place}/data", "{place}/twice", r"evaluation_data: .*x\.jsonl.* and .*x\.jsonl.* are both named 'x'"),
        ("{place}/data", "{place}/data/notes", r"evaluation_data: .*has no question set"),
        ("nowhere://x", "", "data: nowhere://x cannot be opened"),
    ],
)
def test_refusals_name_the_parameter(place: str, data: str, evaluation_data: str, message: str) -> None:
    fill(place)
    put(place, "twice/x.jsonl", question("x"))
    put(place, "twice/x.jsonl.gz", question("x"))
    with pytest.raises((ConfigError, InputError), match=message):
        resolve_recipe("biomed", data.format(place=place), evaluation_data.format(place=place))


def test_settings_of_own_sources_are_about_what_was_found(place: str) -> None:
    rows = "".join(json.dumps({"note_text": text(f"note {number}"), "ward": "A"}) + "\n" for number in range(3))
    put(place, "data/notes/a.jsonl", rows)
    with pytest.raises(InputError, match=r"note_text \(string\).*--set corpus\.sources\.notes\.fields\.text=FIELD"):
        resolve_recipe("biomed", f"{place}/data")
    named = "corpus.sources.notes.fields.text=note_text"
    recipe, notes = resolve_recipe("biomed", f"{place}/data", None, [named, "corpus.sources.notes.license=MIT"])
    assert recipe.corpus.sources["notes"].fields.text == "note_text"
    assert recipe.corpus.sources["notes"].license == "MIT"
    assert any("licence <- MIT, text <- note_text" in note for note in notes)
    for override, message in (
        ("corpus.sources.nots.license=MIT", "has no source 'nots'; its sources: notes"),
        ("corpus.sources.notes.field=x", "corpus.sources.notes.field: unknown key"),
        ("corpus.sources.notes=3", "corpus.sources.notes is a group of settings"),
        ("evaluation_sets.x=/none.jsonl", "with data, question sets come from evaluation_data"),
        ("evaluation.sets.none.limit=3", "evaluation.sets: no scored set is named none"),
    ):
        given = [override] if override == "corpus.sources.notes=3" else [named, override]
        with pytest.raises(ConfigError, match=message):
            resolve_recipe("biomed", f"{place}/data", None, given)


def test_what_is_not_read_is_noted(place: str) -> None:
    fill(place)
    for name in ("scan.PDF", "notes/a.pdf", "notes/b.docx", "only/c.csv", "only/~$c.csv", ".hidden", "LICENSE.txt"):
        put(place, f"data/{name}", "x")
    _, notes = resolve_recipe("biomed", f"{place}/data")
    unread = [note.partition(": ")[2] for note in notes if note.startswith("not read in ")]
    assert unread == [
        "no reader for .pdf: 2 (notes/a.pdf, scan.PDF)",
        "describes the folder, no document: 1 (LICENSE.txt)",
        "hidden: 1 (.hidden)",
        "made by the operating system or an editor: 1 (only/~$c.csv)",
        "no reader for .csv: 1 (only/c.csv)",
        "no reader for .docx: 1 (notes/b.docx)",
    ]
    assert any(note.startswith("  source notes (notes, 3 files): text <- text") for note in notes)
    with pytest.raises(InputError, match=r"data: .*only has no documents; not read: .*\.csv: 1 \(c\.csv\)"):
        resolve_recipe("biomed", f"{place}/data/only")


def test_empty_parameters_are_absent() -> None:
    assert resolve_recipe("biomed", "", "") == resolve_recipe("biomed", None, None) == resolve_recipe("biomed")


def test_a_recipe_names_its_object_store_and_the_environment_has_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.setenv(name, "")  # monkeypatch takes back what the recipe sets
        monkeypatch.delenv(name)
    settings = ["storage.endpoint_url=https://s3.example", "storage.region=eu-1", "storage.profile=hospital"]
    resolve_recipe("biomed", overrides=settings)
    found = [os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_PROFILE")]
    assert found == ["http://127.0.0.1:1", "eu-1", "hospital"]
    with pytest.raises(ConfigError, match=r"storage\.endpoint_url"):
        resolve_recipe("biomed", overrides=["storage.endpoint_url=s3.example"])
    with pytest.raises(ConfigError, match=r"storage\.secret: unknown key"):
        resolve_recipe("biomed", overrides=["storage.secret=x"])
