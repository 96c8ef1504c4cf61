"""Model folders that are refused before an engine sees them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import ModelRefusedError
from serving.model_folder import check_model_folder

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 64}


def make(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"weights")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_plain_folder_is_accepted(tmp_path: Path) -> None:
    folder = check_model_folder(make(tmp_path / "m"))
    assert (folder.max_model_len, folder.has_chat_template) == (64, False)
    assert check_model_folder(make(tmp_path / "m", **{"chat_template.jinja": b"x"})).has_chat_template
    config = json.dumps({"chat_template": "x"}).encode()
    assert check_model_folder(make(tmp_path / "n", **{"tokenizer_config.json": config})).has_chat_template


@pytest.mark.parametrize("name", ["modeling_x.py", "pytorch_model.bin", "model.pt", "a.PKL", "lib.so", "x.pth"])
def test_code_and_pickles_are_refused(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "m")
    (folder / "sub").mkdir()
    (folder / "sub" / name).write_bytes(b"")
    with pytest.raises(ModelRefusedError, match=name):
        check_model_folder(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code"])
def test_pointers_to_code_are_refused(tmp_path: Path, file: str, key: str) -> None:
    folder = make(tmp_path / "m", **{file: json.dumps({**CONFIG, "a": [{key: {"AutoModel": "x.X"}}]}).encode()})
    with pytest.raises(ModelRefusedError, match=key):
        check_model_folder(folder)


@settings(max_examples=30)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_a_pointer_is_found_however_deep(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = make(tmp_path_factory.mktemp("m"))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "a": [value, {"b": {"auto_map": {"x": "y"}}}]}))
    with pytest.raises(ModelRefusedError, match="auto_map"):
        check_model_folder(folder)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="not a folder"):
        check_model_folder(tmp_path / "none")
    for name, reason in (("model.safetensors", "no .safetensors"), ("config.json", "no config.json")):
        folder = make(tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(ModelRefusedError, match=reason):
            check_model_folder(folder)
    with pytest.raises(ModelRefusedError, match="not valid JSON"):
        check_model_folder(make(tmp_path / "json", **{"config.json": b"{"}))
    with pytest.raises(ModelRefusedError, match="no architecture"):
        check_model_folder(make(tmp_path / "arch", **{"config.json": b"{}"}))


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "extra.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelRefusedError, match="link"):
        check_model_folder(folder)
