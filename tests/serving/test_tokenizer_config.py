"""Keys of `tokenizer_config.json` and `special_tokens_map.json`: what is not known is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.errors import ModelRefusedError
from serving.tokenizer_config import check_special_tokens_map, check_tokenizer_config
from stages.tokens.tokenizer import TextTokenizer, train

FILE = Path("m/tokenizer_config.json")
TOKEN = {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "special": True}


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train([["the dose of aspirin"] * 4], 270)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_max_length": 4096, "padding_side": "left", "truncation_side": "right", "add_prefix_space": True},
        {"model_input_names": ["input_ids"], "clean_up_tokenization_spaces": True, "split_special_tokens": False},
        {"additional_special_tokens": ["<a>"], "extra_special_tokens": {"audio_token": "<audio>"}},
    ],
)
def test_what_we_export_is_accepted(tokenizer: TextTokenizer, settings: dict[str, object]) -> None:
    found = TextTokenizer(tokenizer.tokenizer, "<|endoftext|>", "<|endoftext|>", {"IMAGE_token": "<i>"}, settings)
    files = found.files(64)
    check_tokenizer_config(FILE, json.loads(files["tokenizer_config.json"]))
    check_special_tokens_map(FILE, json.loads(files["special_tokens_map.json"]))


def test_what_transformers_saves_is_accepted(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer.tokenizer, eos_token="<|endoftext|>", pad_token="<pad>")
    fast.chat_template = "{{ messages }}"
    fast.save_pretrained(tmp_path)
    check_tokenizer_config(FILE, json.loads((tmp_path / "tokenizer_config.json").read_bytes()))
    older = {"added_tokens_decoder": {"0": TOKEN}, "errors": "replace", "legacy": False, "bos_token": None}
    templates = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}]
    check_tokenizer_config(FILE, older | {"chat_template": templates, "eos_token": TOKEN, "model_max_length": 1e30})
    check_special_tokens_map(FILE, {"eos_token": TOKEN, "additional_special_tokens": [TOKEN, "<a>"]})


ROUTES: dict[str, tuple[object, str]] = {
    # arguments of the tokenizer's class that it opens
    "vocab_file": ("/etc/passwd", "names a file"),
    "merges_file": ("../merges.txt", "names a file"),
    "tokenizer_file": ("/elsewhere/tokenizer.json", "names a file"),
    "chat_template_file": ("/elsewhere/x.jinja", "names a file"),
    "sp_model_kwargs": ({"model_file": "/elsewhere/x.model"}, "names a file"),
    "init_inputs": (["/elsewhere/vocab.json"], "names a file"),
    "gguf_file": ("x.gguf", "names a file"),
    # transformers/tokenization_utils_base.py joins it with the folder
    "fast_tokenizer_files": (["../../tokenizer.9.json"], "names a file"),
    "name_or_path": ("owner/model", "names another model"),
    "auto_map": ({"AutoTokenizer": ["x.Y", None]}, "code"),
    # vllm/transformers_utils/processor.py loads that class
    "processor_class": ("Qwen2VLProcessor", "images"),
    # transformers/tokenization_utils_tokenizers.py and others take these as arguments
    "backend": ("sentencepiece", "must be 'tokenizers'"),
    "tokenizer_object": ({}, "not a known key"),
    "response_schema": ({}, "not a known key"),
    "tokenizer_type": ("bert", "not a known key"),
}


@pytest.mark.parametrize("key", ROUTES)
def test_keys_that_lead_elsewhere_are_refused(key: str) -> None:
    value, words = ROUTES[key]
    with pytest.raises(ModelRefusedError, match=rf"m/tokenizer_config\.json: '{key}' .*{words}"):
        check_tokenizer_config(FILE, {"eos_token": "</s>", key: value})
    # its entries override those of tokenizer_config.json
    with pytest.raises(ModelRefusedError, match=key):
        check_special_tokens_map(FILE, {"eos_token": "</s>", key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("padding_side", "up", "'left' or 'right'"),
        ("model_max_length", "4096", "a finite number"),
        ("model_input_names", ["a/b"], "a list of plain names"),
        ("eos_token", ["</s>"], "a token's text"),
        ("eos_token", {"content": "</s>", "vocab_file": "x"}, "a token's text"),
        ("eos_token", {"content": "</s>", "lstrip": {"a": 1}}, "a token's text"),
        ("eos_token", {"content": "</s>", "__type": "Other"}, "a token's text"),
        ("additional_special_tokens", [{"auto_map": "x"}], "a list of tokens"),
        ("added_tokens_decoder", {"0": "x"}, "tokens by id"),
        ("chat_template", {"path": "/x"}, "a template"),
        ("chat_template", [{"name": "a", "file": "/x"}], "a template"),
    ],
)
def test_values_of_another_kind_are_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(ModelRefusedError, match=f"'{key}' is .*{words}"):
        check_tokenizer_config(FILE, {key: value})


@pytest.mark.parametrize("content", [[], "x", None])
def test_other_json_than_an_object_is_refused(content: object) -> None:
    for check in (check_tokenizer_config, check_special_tokens_map):
        with pytest.raises(ModelRefusedError, match="not a JSON object"):
            check(FILE, content)
