"""Model folders that are refused before an engine loads them."""

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ModelRefusedError, ServingError
from serving.model_folder import check_model_folder, find_model, verify_model
from serving.record import deployment_of
from stages.store import Store, hashing
from tests.serving.gateways import CONFIG, fake_model, safetensors
from tests.support import examples


def make(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(safetensors())
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_plain_folder_is_accepted(tmp_path: Path) -> None:
    folder = check_model_folder(make(tmp_path / "m"))
    assert (folder.max_model_len, folder.has_chat_template) == (64, False)
    assert check_model_folder(make(tmp_path / "m", **{"chat_template.jinja": b"x"})).has_chat_template
    config = json.dumps({"chat_template": "x"}).encode()
    assert check_model_folder(make(tmp_path / "n", **{"tokenizer_config.json": config})).has_chat_template


@pytest.mark.parametrize(
    "name", ["modeling_x.py", "pytorch_model.bin", "model.pt", "a.PKL", "lib.so", "x.pth", "w.gguf", "a.npz", "b.h5"]
)
def test_code_and_pickles_are_refused(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "m")
    (folder / "sub").mkdir()
    (folder / "sub" / name).write_bytes(b"")
    with pytest.raises(ModelRefusedError, match=name):
        check_model_folder(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code"])
def test_references_to_code_are_refused(tmp_path: Path, file: str, key: str) -> None:
    folder = make(tmp_path / "m", **{file: json.dumps({**CONFIG, "a": [{key: {"AutoModel": "x.X"}}]}).encode()})
    with pytest.raises(ModelRefusedError, match=key):
        check_model_folder(folder)


PICKLE = pickle.dumps({"weights": [1.0, 2.0]})


@pytest.mark.parametrize(
    "data", [PICKLE, b"PK\x03\x04" + bytes(60), b"\x7fELF" + bytes(60), b"", b"x", (9).to_bytes(8, "little") + b"{}"]
)
@pytest.mark.parametrize(
    "name", ["model-00002-of-00002.safetensors", "vocab.json", "README", "NOTICE.txt", "tokenizer.model"]
)
def test_the_type_of_a_file_is_determined_by_its_content(tmp_path: Path, name: str, data: bytes) -> None:
    if Path(name).suffix in ("", ".txt") and data in (b"", b"x"):
        return  # that is text
    with pytest.raises(ModelRefusedError, match=name):
        check_model_folder(make(tmp_path / "m", **{name: data}))


def test_files_of_a_real_folder_are_accepted(tmp_path: Path) -> None:
    files = {"LICENSE": b"Apache", "README.md": "grün".encode(), "merges.txt": b"a b\n", "tokenizer.model": b"\x0a\x0e"}
    words = {"auto_map": 5, "trust_remote_code": 6, "vocab_file": 7}  # words of a vocabulary are not settings
    files |= {"vocab.json": json.dumps(words).encode(), "added_tokens.json": b'{"auto_map": 7}'}
    files |= {"tokenizer.json": json.dumps({"model": {"vocab": words, "merges": []}}).encode()}
    files |= {"tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}'}
    check_model_folder(make(tmp_path / "m", **files))


def test_the_longest_text_is_known_for_every_architecture(tmp_path: Path) -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 32}
    assert check_model_folder(make(tmp_path / "m", **{"config.json": json.dumps(config).encode()})).max_model_len == 32


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json", "special_tokens_map.json"])
def test_references_are_found_in_every_file(tmp_path: Path, file: str) -> None:
    folder = make(tmp_path / "m")
    (folder / file).write_text('{"model": {"vocab": {}}, "auto_map": {"AutoTokenizer": "x.Y"}}')
    with pytest.raises(ModelRefusedError, match="auto_map"):
        check_model_folder(folder)


def test_a_harmless_config_in_another_folder_hides_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "m", **{"config.json": json.dumps({**CONFIG, "auto_map": {"AutoConfig": "x.Y"}}).encode()})
    make(folder / "sub")
    with pytest.raises(ModelRefusedError, match="auto_map"):
        check_model_folder(folder)


@pytest.mark.parametrize("value", ["MyTokenizer", "tokenization_x.LlamaTokenizer", "repo--x.Y", ["Y"], {"a": "b"}, ""])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_tokenizer_classes_outside_of_transformers_are_refused(tmp_path: Path, file: str, value: object) -> None:
    data = json.dumps({**CONFIG, "tokenizer_class": value}).encode()
    with pytest.raises(ModelRefusedError, match="tokenizer_class"):
        check_model_folder(make(tmp_path / "m", **{file: data}))


def test_absurdly_deep_json_is_refused(tmp_path: Path) -> None:
    for depth in (900, 100_000):
        data = b'{"a":' * depth + b'{"auto_map": {"x": "y"}}' + b"}" * depth
        with pytest.raises(ModelRefusedError, match=r"auto_map|not valid JSON"):
            check_model_folder(make(tmp_path / "m", **{"special_tokens_map.json": data}))


@examples(30)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_a_reference_is_found_at_any_depth(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
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


def test_links_that_point_outside_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "vocab.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelRefusedError, match="link"):
        check_model_folder(folder)
    (folder / "vocab.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelRefusedError, match="link"):
        check_model_folder(folder)
    (folder / "sub").unlink()
    (folder / "loop.json").symlink_to("loop.json")
    with pytest.raises(ModelRefusedError, match=r"loop\.json"):
        check_model_folder(folder)
    (folder / "loop.json").unlink()
    (folder / "README").symlink_to("config.json")
    check_model_folder(folder)
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(ModelRefusedError, match="not a regular file"):
        check_model_folder(folder)


def test_only_the_bytes_of_the_manifest_are_served(store: Store) -> None:
    model = fake_model(store, "a")
    entry = deployment_of(model, "x", 1)
    assert verify_model(find_model(store, entry)).max_model_len == 64
    with pytest.raises(ServingError, match="asks for"):
        find_model(store, entry.model_copy(update={"model_digest": "0" * 64}))
    with pytest.raises(ServingError, match="no model artifact"):
        find_model(store, entry.model_copy(update={"model_folder": "model/gone"}))
    weights = store.local_path(model.folder) / "weights"
    (weights / "README").write_text("added later")
    with pytest.raises(ServingError, match=r"README is not listed in the artifact's manifest"):
        verify_model(model)
    (weights / "README").unlink()
    (weights / "model.safetensors").write_bytes(safetensors("b"))
    with pytest.raises(ServingError, match=r"damaged \(weights/model.safetensors\)"):
        verify_model(model)


def test_a_large_file_is_hashed_once_and_again_when_modified(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read: list[str] = []
    whole = hashing.sha256_file
    monkeypatch.setattr(hashing, "sha256_file", lambda path: (read.append(Path(path).name), whole(path))[1])
    weights = safetensors("a") + bytes(hashing.MIN_CACHED_BYTES)
    model = fake_model(store, "a", extra={"model.safetensors": weights})
    path = store.local_path(model.folder) / "weights" / "model.safetensors"
    os.utime(path, (1e9, 1e9))
    for _ in range(3):
        verify_model(model)
    assert read.count("model.safetensors") == 1
    os.utime(path)
    verify_model(model)
    assert read.count("model.safetensors") == 2
    path.write_bytes(weights[:-1] + b"x")
    with pytest.raises(ServingError, match="damaged"):
        verify_model(model)


def test_a_damaged_local_copy_is_downloaded_again(remote: Store) -> None:
    entry = deployment_of(fake_model(remote, "a"), "toy", 1)
    artifact = find_model(remote, entry)
    weights = verify_model(artifact).path / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original.replace(b"a", b"b"))
    assert verify_model(artifact).path / "model.safetensors" == weights
    assert weights.read_bytes() == original
