"""`headwater export`: a run that was killed, by the names of other commands; a user's mistakes are one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.recipe import load_recipe
from models.decoder import Decoder
from models.pretrained import load_folder
from models.sizes import config_for_size
from serving.model_folder import check_model_folder
from stages.store import Artifact, ArtifactWriter, ConfigError, EventLog, InputError, Store, StoreError, write_ref
from stages.training.preflight.plan import PLAN
from tests.stages.training.prepared import put_checkpoint
from tests.support import training_config

WORDS = {"<|endoftext|>": 0, "a": 1, "b": 2}
RUN = "training/0123456789abcdef-01234567"


def _tokens(store: Store) -> Artifact:
    writer = ArtifactWriter(store, "tokens/0123456789abcdef", "tokens", 1, "0" * 32, {}, {})
    writer.put("tokenizer/tokenizer.json", Tokenizer(models.BPE(WORDS, [])).to_str().encode())
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    writer.put("tokenizer/tokenizer_config.json", json.dumps(described).encode())
    writer.put("stream.json", json.dumps({"vocabulary_size": 3, "sequence_length": 64, "eos_id": 0}).encode())
    return writer.commit()


@pytest.fixture
def decoders(own_installation: dict[str, str]) -> dict[int, Decoder]:
    """What a run of recipe `demo`, which was killed, had at its checkpoints of steps 100 and 200."""
    store = Store(own_installation["HEADWATER_STORE"])
    tokens = _tokens(store)
    write_ref(store, "demo", "tokens", tokens)
    config = training_config(model__size="1m").model_dump(mode="json")
    EventLog(store, RUN).emit(PLAN, durable=True, tokens=tokens.folder, digest=tokens.digest, config=config, plan={})
    found = {}
    for step in (100, 200):
        torch.manual_seed(step)
        found[step] = Decoder(config_for_size("1m", 3, 64), 0)
        weights = {name: torch.randn(p.shape) for name, p in found[step].named_parameters()}
        found[step].load_state_dict(weights)
        put_checkpoint(store, RUN, weights, step)
    return found


def _ask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def _same(folder: Path, decoder: Decoder, dtype: torch.dtype = torch.float32) -> bool:
    found = dict(load_folder(folder).named_parameters())
    return all(torch.equal(found[name], p.to(dtype).float()) for name, p in decoder.named_parameters())


@pytest.mark.parametrize("name", ["demo", RUN, "training/0123456789"])
def test_a_killed_run_is_exported_by_each_of_its_names(decoders: dict[int, Decoder], name: str, tmp_path: Path) -> None:
    done = _ask(name, "--to", tmp_path / "model", "--step", 100, "--dtype", "float32")
    assert done.exit_code == 0, done.output
    size = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    assert f"{RUN}, step 100" in done.stdout and str(tmp_path / "model") in done.stdout
    assert f"{size / 2**20:,.1f} MiB" in done.stdout and "of memory at most" in done.stdout
    assert _same(tmp_path / "model", decoders[100])


def test_the_newest_checkpoint_in_bfloat16_is_the_default_and_can_be_served(
    decoders: dict[int, Decoder], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = _ask("demo", "--to", tmp_path / "empty", "--json")
    shown = json.loads(done.stdout)
    assert (shown["run"], shown["step"], shown["dtype"]) == (RUN, 200, "bfloat16")
    largest = max(p.numel() for p in decoders[200].parameters())
    assert shown["held_bytes"] == 6 * largest and shown["folder"] == str(tmp_path / "empty")
    assert _same(tmp_path / "empty", decoders[200], torch.bfloat16)
    check_model_folder(tmp_path / "empty")
    assert json.loads((tmp_path / "empty" / "config.json").read_text())["dtype"] == "bfloat16"


def test_mistakes_are_one_message_and_write_nothing(decoders: dict[int, Decoder], tmp_path: Path) -> None:
    full, file, model = tmp_path / "full", tmp_path / "file", tmp_path / "model"
    full.mkdir()
    (full / "mine").write_text("")
    file.write_text("")
    for arguments, kind, message in (
        (("demo", "--to", full), InputError, "full is not empty"),
        (("demo", "--to", file), InputError, "file is not a folder"),
        (("demo", "--to", file / "below"), StoreError, "Not a directory"),
        (("demo", "--to", model, "--step", 5), InputError, "no checkpoint of step 5; it has 100, 200"),
        (("demo", "--to", model, "--dtype", "int8"), ConfigError, "--dtype: 'int8' is not a number format"),
        (("nothing", "--to", model), StoreError, "no artifact 'nothing'"),
    ):
        found = _ask(*arguments).exception
        assert isinstance(found, kind) and message in str(found), f"{arguments}: {found!r}"
    assert sorted(tmp_path.iterdir()) == sorted([full, file, tmp_path / "home"])
    assert [*full.iterdir()] == [full / "mine"]


def test_tokens_that_are_gone_are_named(
    decoders: dict[int, Decoder], own_installation: dict[str, str], tmp_path: Path
) -> None:
    Store(own_installation["HEADWATER_STORE"]).remove("tokens/0123456789abcdef/manifest.json")
    found = _ask(RUN, "--to", tmp_path / "model").exception
    assert isinstance(found, StoreError) and "tokens/0123456789abcdef, are gone" in str(found)


def test_a_recipe_chooses_the_step_of_a_finished_run() -> None:
    assert load_recipe("biomed").export.step is None
    assert load_recipe("biomed", ["export.step=100"]).export.step == 100
    with pytest.raises(ConfigError, match=r"export\.step"):
        load_recipe("biomed", ["export.step=-1"])
