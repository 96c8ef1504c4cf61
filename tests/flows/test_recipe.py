"""Recipes: what is refused, with which message, and that every recipe that ships is valid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows.inputs import resolve_recipe
from flows.recipe import RECIPES, Recipe, _models_in, load_recipe, own_name, parse_recipe, recipe_names
from flows.renamed_keys import GROUP_NOW, RENAMED_KEYS, upgrade_training_config
from stages.store import ConfigError, InputError
from stages.training import TrainingConfig


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid_and_match_the_published_schema(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    schema = json.loads((RECIPES / "recipe.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()), schema)


def test_the_published_schema_is_current() -> None:
    published = json.loads((RECIPES / "recipe.schema.json").read_text())
    assert published == Recipe.model_json_schema(), "run: headwater recipes --schema > flows/recipes/recipe.schema.json"


def test_every_field_is_described() -> None:
    schema = Recipe.model_json_schema()
    missing = [
        f"{name}.{field}"
        for name, model in [("Recipe", schema), *schema["$defs"].items()]
        for field, content in model.get("properties", {}).items()
        if not content.get("description")
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stepz=3", r"training\.stepz: unknown key; did you mean 'steps'"),
        ("steps=4", r"steps: unknown key; did you mean 'training\.steps'"),
        ("stepss=4", r"stepss: unknown key; did you mean 'training\.steps'"),
        ("optimizer={}", r"optimizer: unknown key; did you mean 'training\.optimizer'"),
        ("training.lr=1", r"training\.lr: unknown key; did you mean 'training\.optimizer\.lr'"),
        ("training.batch_size=8", r"unknown key; did you mean 'training\.data\.global_batch_size'"),
        ("training.optimizer.markov_order=8", r"unknown key; did you mean 'evaluation\.markov_order'"),
        ("export.zzzzzzzz=8", r"export\.zzzzzzzz: unknown key; known here: "),
        ("trainin={}", r"trainin: unknown key; did you mean 'training'"),
        (
            "corpus.dedup.similarity_treshold=0.5",
            r"corpus\.dedup\.similarity_treshold: unknown key; did you mean 'similarity_threshold'",
        ),
        ("training.steps=many", r"training\.steps: .*integer.*'many'"),
        ("training.model.size=5m", r"no model size '5m'"),
        (
            "evaluation_sets.mine=relative/path.jsonl",
            r"evaluation_sets\.mine: 'relative/path\.jsonl' is a relative path",
        ),
        (
            "training.data.replay={source: news}",
            r"training\.data\.replay\.source: 'news' is no source of this recipe; there are synthetic_monographs, ",
        ),
        (
            "training.data={replay: {source: synthetic_notes}, weights: {synthetic_notes: 1}}",
            "gives 'synthetic_notes' a share of its own; leave it out of the weights",
        ),
        ("training.data.replay={source: synthetic_notes, share: 1.5}", r"training\.data\.replay\.share: .*less than 1"),
        (
            "training.checkpoint.every_steps=0",
            r"valid:\n  training\.checkpoint\.every_steps: Input should be greater than 0, or: .*'auto' \(given: 0\)$",
        ),
        ("gate.must_beat_markov=true", r"gate\.must_beat_markov: set evaluation\.markov_order"),
        ("nonsense", "section.key=value"),
        ("name.x=1", "'name' is not a section"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("biomed", [override])


@pytest.mark.parametrize(("old", "new"), [*RENAMED_KEYS.items(), *GROUP_NOW.items()])
def test_an_old_key_is_refused_with_its_new_name_which_exists(old: str, new: str) -> None:
    override = f"{old}=1" if not old.endswith("phases.k") else "training.data.phases=[{steps: 320, k: 2}]"
    with pytest.raises(ConfigError, match=rf"{old.partition('.')[0]}.*: .*{re.escape(new)}"):
        load_recipe("biomed", [override])
    at: Any = Recipe
    for part in new.partition(" ")[0].split("."):
        assert part in at.model_fields
        inner = _models_in(at.model_fields[part].annotation)
        at = inner[0] if inner else None


def test_the_config_of_a_run_of_an_earlier_version_is_read_in_today_s_groups() -> None:
    """As version 3 of the training stage recorded it, whole."""
    old = {
        **{
            "size": "nano",
            "steps": 30,
            "batch": 16,
            "seed": 1,
            "k": 1,
            "weights": None,
            "skip": [[3, 5]],
            "window": 16,
        },
        **{"phases": [{"steps": 30, "k": 2, "weights": {"a": 1.0}, "repeat": None}], "lanes": 2, "learning_rate": None},
        **{"warmup": 20, "schedule": "wsd", "decay": 0.3, "final_learning_rate": 0.0, "optimizer": "muon"},
        **{"momentum": 0.95, "weight_decay": 0.1, "betas": [0.9, 0.95], "grad_clip": 1.0, "z_loss": 1e-5, "workers": 4},
        **{"replicas": 2, "micro_batch": 0, "activation_checkpointing": "auto", "device": "auto", "precision": "auto"},
        **{"compile": "auto", "checkpoint_every": 100, "validate_every": 50, "validation_rows": 64, "max_failures": 3},
        "stop_grace": 60.0,
    }
    config = TrainingConfig.model_validate(upgrade_training_config(old))
    assert (config.data.global_batch_size, config.data.streams, config.phases[0].rows_per_sample) == (16, 2, 2)
    assert (config.parallelism.shards_per_replica, config.parallelism.micro_batch_size) == (2, "auto")
    assert config.recovery.skip_batches == ((3, 5),) and config.validation.every_steps == 50
    current = config.model_dump(mode="json")
    assert upgrade_training_config(current) == current


def test_an_unknown_key_of_a_source_is_refused_with_its_place() -> None:
    with pytest.raises(
        ConfigError, match=r"corpus\.sources\.synthetic_notes\.licence: unknown key; did you mean 'license'"
    ):
        load_recipe("biomed", ["corpus.sources.synthetic_notes.licence=CC0-1.0"])


def test_overrides_change_one_value() -> None:
    plain, changed = load_recipe("biomed"), load_recipe("biomed", ["training.steps=70", "corpus.dedup.near=false"])
    assert changed.training.steps == 70
    assert changed.corpus.dedup.near is False
    assert changed.training.model_copy(update={"steps": plain.training.steps}) == plain.training


def test_unknown_recipe_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'biomed'"):
        load_recipe("biomet")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        load_recipe(str(broken))
    broken.write_text("- a list")
    with pytest.raises(ConfigError, match="a recipe is a mapping"):
        load_recipe(str(broken))
    with pytest.raises(ConfigError, match="not found"):
        load_recipe(str(tmp_path / "none.yaml"))


def _folder(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "My Documents"
    folder.mkdir()
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "notes.txt").write_text("A note about nothing in particular.")
    return folder


def test_own_documents_get_a_name_and_sources_of_their_own(tmp_path: Path) -> None:
    folder = _folder(tmp_path, [{"id": "1", "text": "A letter.", "focus": "x"}])
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "exam.jsonl").write_text(
        '{"id": "q", "question": "?", "options": ["a", "b"], "answer": 0}\n'
    )
    recipe, notes = resolve_recipe("biomed", str(folder), str(tmp_path / "questions"))
    assert recipe.name == "biomed+my-documents"
    assert recipe.sample is None
    assert set(recipe.corpus.sources) == {"letters", "notes"}
    assert list(recipe.evaluation_sets) == list(recipe.corpus.decontamination.sets) == ["exam"]
    assert recipe.gate.must_beat_baselines == ()
    assert any("letters" in note and "text" in note for note in notes)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Données médicales", r"biomed\+donnees-medicales"),
        ("日本語", r"biomed\+data-[0-9a-f]{8}"),
        ("!!!", r"biomed\+data-[0-9a-f]{8}"),
        ("x" * 250, r"biomed\+x{47}-[0-9a-f]{8}"),
        (".cases", r"biomed\+\.cases"),
        ("[bold]", r"biomed\+-bold-"),
    ],
)
def test_any_folder_makes_a_name_of_a_model(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.txt").write_text("A text.")
    recipe, notes = resolve_recipe("biomed", str(tmp_path / folder))
    assert re.fullmatch(name, recipe.name)
    assert folder in recipe.description and folder in notes[0]


def test_names_of_models_are_distinct_where_folders_cannot_be_spelled() -> None:
    places = ["/a/日本語", "/a/العربية", "s3://bucket/Москва/", "/a/" + "x" * 200, "/a/" + "x" * 201]
    names = [own_name("biomed", place) for place in places]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 63
    assert own_name("biomed", "/") == "biomed+data" and own_name("biomed", "/b/日本語") == names[0]
    assert len(own_name("r" * 60, "/a/documents")) <= 63


def test_a_mixture_of_too_many_sources_is_refused_before_any_work() -> None:
    content = load_recipe("biomed").model_dump(mode="json")
    source = next(iter(content["corpus"]["sources"].values()))
    content["corpus"]["sources"] = {f"s{number}": source for number in range(1025)}
    mixtures = [content["training"]["data"], *content["training"]["data"]["phases"]]
    for mixture in mixtures:
        mixture["weights"] = None
    with pytest.raises(ConfigError, match=r"1,025 sources; a mixture has at most 1,024: .* one folder"):
        parse_recipe(content, "many")
    for mixture in mixtures:
        mixture["weights"] = {f"s{number}": 1.0 for number in range(1024)}
    assert len(parse_recipe(content, "many").corpus.sources) == 1025


def test_paths_that_a_deployment_cannot_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data: 'some/folder' is a relative path"):
        resolve_recipe("biomed", "some/folder")
    with pytest.raises(ConfigError, match="evaluation_data: give it together with data"):
        resolve_recipe("biomed", None, str(tmp_path))
    with pytest.raises(InputError, match="empty"):
        (tmp_path / "empty").mkdir()
        resolve_recipe("biomed", str(tmp_path / "empty"))
