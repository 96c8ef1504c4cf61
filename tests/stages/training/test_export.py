"""The exported folder, as somebody without this repository would use it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import Tensor

from models.decoder import Decoder
from models.huggingface import SpecialTokens, to_config
from models.pretrained import load_folder
from models.sizes import config_for_size
from serving.model_folder import check_model_folder
from stages.store import Artifact, ArtifactWriter, InputError, Store, StoreError
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.weights import checkpoint_weights
from stages.training.export import ExportConfig, export, export_checkpoint
from stages.training.loop.loop import Loop
from stages.training.model import generation_config_of
from tests.stages.training.prepared import (
    before_step,
    make,
    one_core,
    path,
    prepare,
    put_checkpoint,
    run_folder,
    train_on,
    write_weights,
)
from tests.support import ObjectStore, training_config

WORDS = {"<|endoftext|>": 0, **{letter: n + 1 for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}}


def _tokens(store: Store, files: Mapping[str, str] | None = None, **extra: str) -> Artifact:
    writer = ArtifactWriter(store, f"tokens/{len(extra)}", "tokens", 1, "0" * 32, {}, {})
    writer.put("tokenizer/tokenizer.json", Tokenizer(models.BPE(WORDS, [])).to_str().encode())
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    described = names | {"tokenizer_class": "PreTrainedTokenizerFast"} | extra
    writer.put("tokenizer/tokenizer_config.json", json.dumps(described).encode())
    writer.put("tokenizer/special_tokens_map.json", json.dumps(names).encode())
    for name, text in (files or {}).items():
        writer.put(f"tokenizer/{name}", text.encode())
    return writer.commit()


def _training(store: Store, tokens: Artifact, size: str = "1m") -> Artifact:
    """A run's artifact with random weights."""
    shape = config_for_size(size, len(WORDS), 64)
    torch.manual_seed(0)
    decoder = Decoder(shape, 0)
    weights = {name: torch.randn(p.shape) * 0.1 for name, p in decoder.named_parameters()}
    writer = ArtifactWriter(store, f"training/{size}", "training", 1, "1" * 32, {}, {"tokens": tokens.digest})
    write_weights(writer, weights)
    config = to_config(shape, SpecialTokens.from_scratch(0))
    writer.put("config.json", json.dumps(config).encode())
    writer.put("generation_config.json", json.dumps(generation_config_of(config, None)).encode())
    writer.put("loss.parquet", b"")
    writer.metrics["bits_per_byte"] = 1.5
    return writer.commit()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_stock_transformers_loads_it_and_agrees(store: Store):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = _tokens(store)
    done = export.run(ExportConfig(dtype="float32"), {"training": _training(store, tokens), "tokens": tokens}, store)
    folder = done.local("weights")
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert type(stock).__name__ == "Qwen3ForCausalLM" and stock.config.vocab_size % 128 == 0
    assert tokenizer.eos_token_id == stock.generation_config.eos_token_id == 0
    assert stock.generation_config.pad_token_id == 0
    ids = torch.tensor([list(range(1, 28))])
    torch.testing.assert_close(load_folder(folder)(ids), stock(ids).logits, atol=1e-4, rtol=0)
    assert done.manifest.metrics["bits_per_byte"] == 1.5


def test_it_is_bf16_by_default_and_contains_no_code(store: Store):
    tokens = _tokens(store)
    done = export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)
    names = {entry.path for entry in done.files()}
    weights = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names == {f"weights/{name}" for name in weights | {"tokenizer_config.json", "special_tokens_map.json"}}
    tensors = load_file(done.local("weights/model.safetensors"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads(done.read("weights/config.json"))["dtype"] == "bfloat16"
    assert "auto_map" not in json.loads(done.read("weights/config.json"))


def test_chat_templates_are_exported_with_the_tokenizer(store: Store):
    from transformers import AutoTokenizer

    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    files = {"chat_template.jinja": template, "additional_chat_templates/twice.jinja": template * 2}
    tokens = _tokens(store, files)
    done = export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)
    tokenizer = AutoTokenizer.from_pretrained(done.local("weights"))
    assert tokenizer.chat_template == {"default": template, "twice": template * 2}
    assert tokenizer.apply_chat_template([{"content": "ab c"}], tokenize=False, chat_template="twice") == "ab cab c"
    assert check_model_folder(done.local("weights")).has_chat_template, "the gateway lets chats through"


def test_tokens_of_another_run_are_refused(store: Store):
    run = _training(store, _tokens(store))
    with pytest.raises(InputError, match="was not trained on"):
        export.run(ExportConfig(), {"training": run, "tokens": _tokens(store, name="other")}, store)


def test_a_tokenizer_that_brings_code_is_refused(store: Store):
    tokens = _tokens(store, auto_map="x.Y")
    with pytest.raises(InputError, match="auto_map"):
        export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)


@dataclass(frozen=True)
class Kept:
    """A finished run that kept its checkpoints of steps 4, 8 and 12."""

    store: Store
    run: Artifact
    tokens: Artifact
    weights: dict[int, dict[str, Tensor]]
    """The weights that it had in memory at steps 4 and 8."""

    def exported(self, step: int | None) -> dict[str, Tensor]:
        config = ExportConfig(dtype="float32", step=step)
        done = export.run(config, {"training": self.run, "tokens": self.tokens}, self.store)
        return load_file(done.local("weights/model.safetensors"))

    def to_folder(self, step: int | None, folder: Path) -> int:
        """The step that `headwater export` takes."""
        config, settings = ExportConfig(dtype="float32", step=step), training_config(model__size="1m")
        return export_checkpoint(self.store, self.run.folder, settings, self.tokens, config, folder)[1]

    def damage(self, step: int) -> None:
        """Flips a bit of a checkpoint's weights."""
        name = f"{self.run.folder}/checkpoints/{step_folder(step)}/weights-00000-00000.safetensors"
        content = bytearray(self.store.read(name))
        content[-1] ^= 1
        self.store.put(name, bytes(content))


@pytest.fixture(scope="module", params=["local", "s3"])
def kept(
    request: pytest.FixtureRequest,
    tokens_artifact: Artifact,
    object_store: ObjectStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kept]:
    """Read only, but for its checkpoint of step 8, which one test damages."""
    if request.param == "s3":
        fsspec.filesystem("s3").mkdir("kept-checkpoints")
    store = Store("s3://kept-checkpoints/store" if request.param == "s3" else tmp_path_factory.mktemp("kept"))
    weights: dict[int, dict[str, Tensor]] = {}

    def note(loop: Loop) -> None:
        weights[loop.next_step] = {name: p.detach().clone() for name, p in loop.state.model.named_parameters()}

    with one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for step in (4, 8):
            before_step(patch, step, note)
        run = make(store, tokens_artifact, checkpoint__keep_every_steps=4, checkpoint__keep=1)
        yield Kept(store, run, tokens_artifact, weights)


def _equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_weights_of_a_step_are_those_that_it_had(kept: Kept, tmp_path: Path):
    early = kept.exported(4)
    assert _equal(early, kept.weights[4])
    assert not _equal(kept.exported(None), early)
    assert _equal(kept.exported(12), kept.exported(None)), "the last checkpoint is the run's end"
    assert kept.to_folder(4, tmp_path / "early") == 4
    assert _equal(load_file(tmp_path / "early" / "model.safetensors"), early)
    assert kept.to_folder(None, tmp_path / "newest") == 12


def test_an_unknown_step_is_refused_with_those_that_there_are(kept: Kept, tmp_path: Path):
    for ask in (kept.exported, lambda step: kept.to_folder(step, tmp_path / "model")):
        with pytest.raises(InputError, match=r"no checkpoint of step 5; it has 4, 8, 12 \(training\.checkpoint\.keep"):
            ask(5)
    assert not (tmp_path / "model").exists()


def test_a_damaged_checkpoint_is_refused_by_name(kept: Kept, tmp_path: Path):
    kept.damage(8)
    for ask in (kept.exported, lambda step: kept.to_folder(step, tmp_path / "model")):
        with pytest.raises(StoreError, match=r"step-00000008/weights-00000-00000\.safetensors is damaged"):
            ask(8)
    assert not (tmp_path / "model").exists()


def test_a_killed_run_is_exported_from_what_it_left(interrupted: Store, tokens_artifact: Artifact, tmp_path: Path):
    folder, settings = f"training/{run_folder(interrupted).name}", training_config(model__size="1m")
    to = lambda name, step: export_checkpoint(  # noqa: E731
        interrupted, folder, settings, tokens_artifact, ExportConfig(step=step), tmp_path / name
    )
    done, step = to("newest", None)
    assert step == 8 and check_model_folder(tmp_path / "newest").path == tmp_path / "newest"
    assert done.bytes == sum(file.stat().st_size for file in (tmp_path / "newest").rglob("*") if file.is_file())
    assert to("earlier", 4)[1] == 4
    with pytest.raises(InputError, match="newest is not empty"):
        to("newest", None)
    for manifest in run_folder(interrupted).glob(f"checkpoints/*/{MANIFEST}"):
        manifest.unlink()
    with pytest.raises(InputError, match="has no whole checkpoint yet; start the run again"):
        to("nothing", None)


def test_a_disk_that_gets_full_is_left_as_it_was(
    interrupted: Store, tokens_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, real = f"training/{run_folder(interrupted).name}", os.open

    def full(name: str | Path, flags: int, *mode: int, **more: int) -> int:
        return (
            real("/dev/full", os.O_WRONLY)
            if str(name).endswith("model.safetensors")
            else real(name, flags, *mode, **more)
        )

    monkeypatch.setattr(os, "open", full)
    settings, target = training_config(model__size="1m"), tmp_path / "a" / "model"
    with pytest.raises(StoreError, match=r"model: .*No space left"):
        export_checkpoint(interrupted, folder, settings, tokens_artifact, ExportConfig(), target)
    assert not target.exists()


def test_several_ranks_and_one_export_the_same_bytes(tokens_artifact: Artifact, tmp_path: Path):
    """The checkpoint of two ranks, put together here by stock SafeTensors, is written again as one rank writes it."""
    run = prepare(tmp_path / "two", tokens_artifact, steps=1, schedule__warmup_steps=0)
    assert train_on(2, run)["status"] == "finished"
    folder = path(run, f"checkpoints/{step_folder(1)}")
    parts = [load_file(file) for file in sorted(folder.glob("weights-*.safetensors"))]
    assert len(parts) == 2
    names = {name for part in parts for name in part}
    whole = {name.removeprefix("weight."): torch.cat([p[name] for p in parts if name in p]) for name in names}
    put_checkpoint(run.store, "one", whole, 1)
    config = ExportConfig(step=1)
    for name in ("run", "one"):
        export_checkpoint(run.store, name, run.settings, tokens_artifact, config, tmp_path / name)
    first, second = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("run", "one"))
    assert first == second and "model.safetensors" in first


def test_weights_outside_of_the_files_of_weights_are_refused(store: Store):
    put_checkpoint(store, "training/run", {"a": torch.zeros(3)}, 1)
    folder = store.local_path(f"training/run/checkpoints/{step_folder(1)}")
    (folder / "weights-00000-00000.safetensors").rename(folder / "other")
    for name in ("index.json", MANIFEST):
        text = (folder / name).read_text().replace("weights-00000-00000.safetensors", "other")
        if name == MANIFEST:
            manifest = json.loads(text)
            index = (folder / "index.json").read_bytes()
            entry = next(entry for entry in manifest["files"] if entry["path"] == "index.json")
            entry |= {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}
            text = json.dumps(manifest)
        (folder / name).write_text(text)
    with pytest.raises(StoreError, match="has weights in other"):
        checkpoint_weights(store, "training/run", 1, folder)
