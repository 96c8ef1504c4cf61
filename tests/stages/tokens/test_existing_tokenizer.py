"""An existing tokenizer is exported unchanged: the same ids and the same chat prompts in stock transformers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from stages.corpus import list_files
from stages.hub import TOKENIZER_FILES, find_location
from stages.store import Artifact, ConfigError, InputError
from stages.tokens import TokensConfig
from stages.tokens.existing_tokenizer import load_tokenizer
from stages.tokens.tokenizer import train

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = "{{ bos_token }}{% for tool in tools %}{{ tool['function']['name'] }} {% endfor %}" + TURNS
MESSAGES = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "What is 2 + 2?<|im_end|> naïve 検査"},
]
TOOL = {"type": "function", "function": {"name": "dose", "description": "d", "parameters": {"type": "object"}}}
TEXTS = [
    "plain text, and more",
    "a turn<|im_end|>\n<|im_start|>user",
    "  naïve 検査 🧪 don't 1234",
    "<image> <s> </s><audio>",
    "",
]


BASE = 296
"""Tokens before those that are added."""


def save(folder: Path, added: list[AddedToken], config: dict[str, Any], files: dict[str, str]) -> Path:
    """A foreign tokenizer: `BASE` tokens and those that are `added`."""
    ours = train([["the dose of aspirin did not change in the liver, and the dose was low"] * 4], BASE).tokenizer
    tokenizer = Tokenizer.from_str(ours.to_str())
    tokenizer.add_tokens([token for token in added if not token.special])
    tokenizer.add_special_tokens([token for token in added if token.special])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def special(*contents: str) -> list[AddedToken]:
    return [AddedToken(content, special=True, normalized=False) for content in contents]


COMMON = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, "padding_side": "left"}
LAYOUTS: dict[str, tuple[list[AddedToken], dict[str, Any], dict[str, str]]] = {
    # one template among the settings, as transformers 4 saved it
    "settings": (
        special("<s>", "<|im_start|>", "<|im_end|>"),
        {
            "eos_token": {"__type": "AddedToken", "content": "<|im_end|>"},
            "bos_token": "<s>",
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "chat_template": TURNS,
        },
        {},
    ),
    # several templates in the settings
    "several in settings": (
        special("<s>", "<|im_start|>", "<|im_end|>"),
        {
            "eos_token": "<|im_end|>",
            "bos_token": "<s>",
            "chat_template": [{"name": "default", "template": TURNS}, {"name": "tool_use", "template": TOOLS}],
        },
        {"special_tokens_map.json": json.dumps({"eos_token": {"content": "<|im_end|>", "lstrip": False}})},
    ),
    # files of their own, which go before the settings; tokens that are added but not special
    "files": (
        [*special("<s>", "<|im_start|>", "<|im_end|>"), AddedToken("aspirin", normalized=False)],
        {
            "eos_token": "<|im_end|>",
            "bos_token": "<s>",
            "image_token": "<image>",
            "extra_special_tokens": {"audio_token": "<audio>"},
            "chat_template": "not this one",
        },
        {"chat_template.jinja": TURNS, "additional_chat_templates/tool_use.jinja": TOOLS},
    ),
    # tokens that only the settings know
    "listed": (
        special("<s>", "<|im_start|>"),
        {
            "eos_token": "<|im_end|>",
            "bos_token": "<s>",
            "chat_template": TURNS,
            "added_tokens_decoder": {
                str(number): {"content": content, "special": content != "</s>", "normalized": False}
                for number, content in enumerate(["<s>", "<|im_start|>", "<|im_end|>", "</s>"], BASE)
            },
        },
        {},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_gives_the_same_ids_and_prompts(
    layout: str, tmp_path: Path, make: Callable[..., Artifact], config: TokensConfig
) -> None:
    from transformers import AutoTokenizer

    added, settings, files = LAYOUTS[layout]
    folder = save(tmp_path / "theirs", added, COMMON | settings, files)
    artifact = make({"notes": TEXTS}, {}, config, tokenizer=list_files(folder, TOKENIZER_FILES))
    theirs, ours = (AutoTokenizer.from_pretrained(path) for path in (folder, artifact.local("tokenizer")))
    assert len(ours) == len(theirs) == artifact.manifest.counts["vocabulary"]
    assert ours.get_vocab() == theirs.get_vocab()
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert load_tokenizer(list_files(folder, TOKENIZER_FILES)).encode([text]) == [
            theirs(text, split_special_tokens=True)["input_ids"]
        ]
    assert (ours.model_max_length, ours.padding_side) == (4096, "left")
    assert ours.special_tokens_map | {"pad_token": None} == theirs.special_tokens_map | {"pad_token": None}
    assert ours.extra_special_tokens == theirs.extra_special_tokens
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)
    assert ours.chat_template == theirs.chat_template
    several = isinstance(theirs.chat_template, dict)
    for options in ({}, {"tools": [TOOL]} if several else {}, {"add_generation_prompt": True}):
        prompts = [t.apply_chat_template(MESSAGES, tokenize=False, **options) for t in (ours, theirs)]
        assert prompts[0] == prompts[1] and "<|im_start|>user" in prompts[0]
        ids = [t.apply_chat_template(MESSAGES, return_dict=False, **options) for t in (ours, theirs)]
        assert ids[0] == ids[1]


def without(settings: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {key: value for key, value in (settings | others).items() if value is not None}


LISTED = LAYOUTS["listed"][1]


@pytest.mark.parametrize(
    ("settings", "files", "message"),
    [
        (without(LISTED, eos_token="<end>"), {}, "no special token '<end>' to end documents; set `eos_token`"),
        (without(LISTED, eos_token="</s>"), {}, "no special token '</s>'"),  # in the vocabulary, but not special
        (without(LISTED, auto_map={"AutoTokenizer": "x.y"}), {}, "needs custom code"),
        (
            without(LISTED, added_tokens_decoder={"700": {"content": "<late>", "special": True}}),
            {},
            f"/tokenizer_config.json, but {BASE + 2} with tokenizer.json",
        ),
        (
            LISTED,
            {"additional_chat_templates/a b.jinja": "x"},
            "chat template 'a b': the name may contain only letters",
        ),
        (without(LISTED, chat_template=[{"name": "../x", "template": "t"}]), {}, "chat template '../x'"),
    ],
)
def test_unusable_tokenizers_are_refused(settings: Any, files: Any, message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "theirs", LAYOUTS["listed"][0], settings, files)
    with pytest.raises(InputError, match=re.escape(message)):
        load_tokenizer(list_files(folder, TOKENIZER_FILES))


def test_a_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "theirs", LAYOUTS["listed"][0], LISTED, {})
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match=r"chat_template\.jinja is not UTF-8 text"):
        load_tokenizer(list_files(folder, TOKENIZER_FILES))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one model in it, and no hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--base"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    blobs = save(repository / "blobs", *LAYOUTS["settings"])
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    (snapshot / "model.safetensors").write_bytes(bytes(8))
    return snapshot


def test_a_hub_id_is_found_in_the_cache_without_the_hub(hub: Path) -> None:
    for name in ("someone/base", "someone/base@main", f"someone/base@{'a' * 40}"):
        assert Path(find_location("tokens.tokenizer", name)) == hub
    listed = list_files(find_location("tokens.tokenizer", "someone/base"), TOKENIZER_FILES)
    assert [file.name for file in listed.files] == ["tokenizer.json", "tokenizer_config.json"]
    assert load_tokenizer(listed).eos == "<|im_end|>"
    with pytest.raises(InputError, match=r"cannot download someone/other from .*; without the hub, copy"):
        find_location("tokens.tokenizer", "someone/other")
    with pytest.raises(InputError, match="cannot download someone/base@dev"):
        find_location("tokens.tokenizer", "someone/base@dev")


def test_paths_and_urls_are_not_changed(tmp_path: Path) -> None:
    assert find_location("tokens.tokenizer", str(tmp_path)) == str(tmp_path)
    assert find_location("tokens.tokenizer", "s3://bucket/tokenizer") == "s3://bucket/tokenizer"
    for wrong in ("./here", "a/b/c", "", "owner/name@"):
        with pytest.raises(ConfigError, match="neither an absolute path, a URL, nor a hub id"):
            find_location("tokens.tokenizer", wrong)
