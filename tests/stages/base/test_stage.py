"""A model that exists becomes an artifact: whole, checked, and refused where it could not be trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from models.huggingface import WEIGHTS
from models.pretrained import EMBEDDING, HEAD
from models.sizes import Architecture
from stages.base.folder import FILES
from stages.base.tokenizer import tokenizer_of
from stages.corpus import list_files
from stages.hub import TOKENIZER_FILES
from stages.store import InputError, Store
from tests.models.small import save_weights
from tests.stages.base.bases import BOS, END_OF_TEXT, END_OF_TURN, VOCABULARY, import_base, save_base


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_it_loads_in_transformers_as_the_original_does(architecture: Architecture, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_base(tmp_path / "model", architecture, tied=architecture != "MistralForCausalLM")
    done = import_base(folder, Store(tmp_path / "store"))
    copy = done.local("weights")
    theirs, ours = (AutoModelForCausalLM.from_pretrained(place) for place in (folder, copy))
    assert type(ours).__name__ == architecture == done.manifest.details["architecture"]
    found = dict(ours.named_parameters())
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.named_parameters())
    assert len(AutoTokenizer.from_pretrained(copy)) == VOCABULARY == done.manifest.counts["vocabulary"]
    assert done.manifest.details["license"] == "Apache-2.0"
    assert done.manifest.details["eos_ids"] == [END_OF_TEXT, END_OF_TURN] and done.manifest.details["bos_id"] == BOS


def test_the_place_of_a_folder_does_not_matter(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model")
    first = import_base(folder, Store(tmp_path / "store"))
    folder.rename(tmp_path / "moved")
    again = import_base(tmp_path / "moved", Store(tmp_path / "other"))
    assert (again.digest, again.fingerprint) == (first.digest, first.fingerprint)


def test_its_tokenizer_is_listed_as_the_folder_s_own(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("x")
    listed = tokenizer_of(import_base(folder, Store(tmp_path / "store")))
    assert listed.digest == list_files(folder, TOKENIZER_FILES).digest
    assert {file.name for file in listed.files} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "additional_chat_templates/tool_use.jinja",
    }
    with listed.open("tokenizer.json") as file:
        assert file.read() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("said", "card", "found"),
    [
        (None, "---\nlicense: apache-2.0\n---\n", "Apache-2.0"),
        ("MIT", "---\nlicense: apache-2.0\n---\n", "MIT"),
        (None, "---\r\nlicense: mit\r\n---\r\n# x", "MIT"),
        (None, "---\nlicense: other\nlicense_name: qwen-research\n---\n", "LicenseRef-qwen-research"),
        (None, "---\nlicense: other\nlicense_name: 'a\\nb'\n---\n", "unknown"),
        (None, "---\nlicense: [mit, apache-2.0]\n---\n", "unknown"),
        (None, "---\nlicense: !!python/object/apply:os.system ['true']\n---\n", "unknown"),
        (None, "---\n- a\n---\n", "unknown"),
        (None, "# no front matter, license: mit", "unknown"),
        (None, "", "unknown"),
    ],
)
def test_its_licence_is_what_its_card_says_and_never_guessed(
    said: str | None, card: str, found: str, tmp_path: Path
) -> None:
    folder = save_base(tmp_path / "model")
    (folder / "README.md").write_text(card, newline="")
    (folder / "LICENSE").write_text("Apache License Version 2.0")
    done = import_base(folder, Store(tmp_path / "store"), base_license=said)
    assert done.manifest.details["license"] == found
    warned = [event["message"] for event in done.events().read()[0] if event["type"] == "warning"]
    contradicted = said is not None  # the card says Apache-2.0
    assert ["training.model.base_license" in text for text in warned] == [True] * (found == "unknown" or contradicted)


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_weights(weights, folder / WEIGHTS)


def _only_pickles(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")


def _config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))

    return change


def _tokenizer_code(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"auto_map": {"AutoTokenizer": "x.Y"}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json, its tokenizer: without it"),
        (lambda f: (f / "config.json").unlink(), "has no config.json, its shape"),
        (
            _only_pickles,
            r"no SafeTensors weights .* no GGUF file; it has pytorch_model.bin, which are not read: pickles can run",
        ),
        (lambda f: (f / WEIGHTS).rename(f / "q4.gguf"), r"q4.gguf: it does not begin as a GGUF file does"),
        (_tokenizer_code, "needs custom code"),
        (_config(auto_map={"AutoModel": "x.Y"}), "auto_map: the model needs code of its own"),
        (_config(architectures=["GPTBigCodeForCausalLM"]), "one of Qwen3ForCausalLM, Qwen2ForCausalLM, Llama"),
        (
            _config(vocab_size=256, eos_token_id=1, bos_token_id=0),
            "its tokenizer has 299 tokens, and its weights have rows for 256",
        ),
        (_config(num_hidden_layers=3), r"model.layers.2.input_layernorm.weight is missing"),
        (_config(quantization_config={"bits": 4}), "quantized"),
        (_config(attention_bias=True), "attention_bias is not supported"),
        (lambda f: (f / "config.json").write_text("["), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text(" " * (17 << 20)), "17,825,792 bytes: no config"),
        (lambda f: _weights(f, lambda w: w[EMBEDDING].view(-1)[-1].fill_(float("nan"))), "embed_tokens.* not finite"),
        (lambda f: _weights(f, lambda w: w.update({HEAD: w[EMBEDDING] * 2})), "tie_word_embeddings, but .* differ"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "model.safetensors is damaged"),
    ],
)
def test_what_could_not_be_trained_is_refused(change: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder, store = save_base(tmp_path / "model"), Store(tmp_path / "store")
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        import_base(folder, store)
    assert str(folder) in str(caught.value) and str(store.root) not in str(caught.value)
    assert not [name for name in store.list("base") if "manifest" in name or "weights" in name]


def test_a_window_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model", "MistralForCausalLM", sliding_window=64)
    with pytest.raises(InputError, match="sliding_window is 64 of 128 positions"):
        import_base(folder, Store(tmp_path / "store"))


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    from stages.base.stage import BaseConfig, base

    folder = save_base(tmp_path / "model")
    listed = list_files(folder, FILES)
    shutil.copy(folder / "README.md", folder / WEIGHTS)
    with pytest.raises(InputError, match=r"training\.model\.base: .*changed"):
        base.run(BaseConfig(), {"folder": listed}, Store(tmp_path / "store"))
