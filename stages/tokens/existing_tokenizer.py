"""Loading an existing tokenizer with its vocabulary, special tokens, settings and chat templates.

The files written from it (`TextTokenizer.files`) load in `transformers.AutoTokenizer` with the same ids and the same
chat prompts as the original folder. Custom code is refused; truncation and padding are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, Protocol

import orjson
from tokenizers import AddedToken, Tokenizer

from stages.store.errors import InputError
from stages.tokens.tokenizer import (
    CHAT_TEMPLATE,
    DEFAULT_TEMPLATE,
    EOS,
    FILES,
    MORE_TEMPLATES,
    TextTokenizer,
)

TOKENIZER, CONFIG, SPECIAL = FILES

MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
"""Further special tokens, by transformers 4's name and by 5's."""

KEPT_SETTINGS = (
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "add_prefix_space",
    "split_special_tokens",
    *MORE_SPECIAL,
)
"""Settings that change a tokenizer's behaviour. Others are paths, classes or obsolete."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Named special tokens, in the order in which transformers adds them to a vocabulary."""

_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Folder(Protocol):
    """The listing of an existing tokenizer's folder."""

    @property
    def location(self) -> str: ...

    @property
    def files(self) -> tuple[Any, ...]: ...

    def open(self, name: str) -> BinaryIO: ...


def load_tokenizer(folder: Folder) -> TextTokenizer:
    """Loads an existing tokenizer from a listed folder.

    Raises:
        InputError: it is not a byte-level fast tokenizer with an EOS, its files contradict each other, or it needs
            custom code.
    """
    names = {entry.name for entry in folder.files}
    if TOKENIZER not in names:
        raise InputError(f"tokenizer: {folder.location} has no {TOKENIZER}; save it with `save_pretrained` first")
    config, special = (_json(folder, name) if name in names else {} for name in (CONFIG, SPECIAL))
    if "auto_map" in config:
        raise InputError(f"tokenizer: {folder.location}/{CONFIG} needs custom code (auto_map), which is not allowed")
    tokenizer = _load(folder)
    if not _is_byte_level(_component(tokenizer.pre_tokenizer)) or not _preserves_text(_component(tokenizer.normalizer)):
        raise InputError(
            f"tokenizer: {folder.location} is not byte-level, or its normalizer changes text, so the bytes of a token "
            "are unknown; use a byte-level BPE (Llama 3, Qwen, GPT-2, SmolLM), or train one"
        )
    _add_listed(folder, tokenizer, config.get("added_tokens_decoder") or {})
    named = _named_tokens({**config, **special})
    eos = named.get("eos_token", EOS)
    if eos not in _special(tokenizer):
        raise InputError(
            f"tokenizer: {folder.location} has no special token {eos!r} to end documents; set `eos_token` in {CONFIG} "
            f"to a token that {TOKENIZER} lists as special"
        )
    _add_missing(tokenizer, named.values())
    pad = named.pop("pad_token", eos)
    named.pop("eos_token", None)
    settings = {key: config[key] for key in KEPT_SETTINGS if config.get(key) is not None}
    for key in MORE_SPECIAL:
        if key in settings:
            settings[key] = more = _contents(settings[key])
            _add_missing(tokenizer, more.values() if isinstance(more, dict) else more)
    return TextTokenizer(tokenizer, eos, pad, named, settings, _chat_templates(folder, names, config))


def _load(folder: Folder) -> Tokenizer:
    text = _text(folder, TOKENIZER)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"tokenizer: {folder.location}/{TOKENIZER} cannot be loaded: {error}") from error


def _named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Named special tokens by name; model-specific ones (`image_token`) after the standard ones."""
    own = [key for key in settings if key.endswith("_token") and key not in NAMED]
    found = {key: _content(settings.get(key)) for key in (*NAMED, *own)}
    return {key: token for key, token in found.items() if isinstance(token, str)}


def _contents(tokens: Any) -> Any:
    """The texts of further special tokens, given as a list or as a dictionary by name."""
    if isinstance(tokens, dict):
        return {name: _content(token) for name, token in tokens.items()}
    return [_content(token) for token in tokens]


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _special(tokenizer: Tokenizer) -> set[str]:
    return {added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special}


def _add_listed(folder: Folder, tokenizer: Tokenizer, listed: Mapping[str, Any]) -> None:
    """Adds tokens that are only in the settings' `added_tokens_decoder`, with the ids given there.

    Raises:
        InputError: the tokenizer assigns another id.
    """
    known = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
    for index, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        if entry["content"] in known:
            continue
        options = {key: entry[key] for key in ("lstrip", "rstrip", "single_word", "normalized") if key in entry}
        token = AddedToken(entry["content"], special=bool(entry.get("special")), **options)
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        got = tokenizer.token_to_id(token.content)
        if got != int(index):
            raise InputError(
                f"tokenizer: {token.content!r} has id {index} in {folder.location}/{CONFIG}, but {got} with {TOKENIZER}"
                "; save the tokenizer again with `save_pretrained`"
            )


def _add_missing(tokenizer: Tokenizer, tokens: Iterable[str]) -> None:
    """Adds tokens as special ones if they are not known yet, as transformers does when it loads a tokenizer."""
    known = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for token in dict.fromkeys(tokens) if token not in known]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])


def _chat_templates(folder: Folder, names: set[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name. As in transformers, files override the settings.

    Raises:
        InputError: a template that is not text, or whose name is not a valid file name.
    """
    found: dict[str, str] = {}
    if CHAT_TEMPLATE in names:
        found[DEFAULT_TEMPLATE] = _text(folder, CHAT_TEMPLATE)
    for name in sorted(names):
        if name.startswith(f"{MORE_TEMPLATES}/") and name.endswith(".jinja"):
            found[name.removeprefix(f"{MORE_TEMPLATES}/").removesuffix(".jinja")] = _text(folder, name)
    if not found:
        given = config.get("chat_template") or []
        found = {DEFAULT_TEMPLATE: given} if isinstance(given, str) else {t["name"]: t["template"] for t in given}
    for name in found:
        if not _TEMPLATE_NAME.fullmatch(name):
            raise InputError(
                f"tokenizer: {folder.location}: chat template {name!r}: the name may contain only letters, digits, "
                "'_', '.', '-', since a file is named after it"
            )
    return found


def _text(folder: Folder, name: str) -> str:
    with folder.open(name) as stream:
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise InputError(f"tokenizer: {folder.location}/{name} is not UTF-8 text: {error}") from error


def _json(folder: Folder, name: str) -> dict[str, Any]:
    with folder.open(name) as stream:
        try:
            return dict(orjson.loads(stream.read()))
        except ValueError as error:
            raise InputError(f"tokenizer: {folder.location}/{name} is not valid JSON: {error}") from error


def _component(component: Any) -> dict[str, Any] | None:
    """The entry in `tokenizer.json` of a pre-tokenizer or normalizer."""
    return orjson.loads(component.__getstate__()) if component else None


def _is_byte_level(component: dict[str, Any] | None) -> bool:
    if not component:
        return False
    return component["type"] == "ByteLevel" or any(map(_is_byte_level, component.get("pretokenizers", ())))


def _preserves_text(normalizer: dict[str, Any] | None) -> bool:
    """The corpus normalizes documents to NFC, so NFC (as in Qwen) changes almost nothing."""
    return not normalizer or normalizer["type"] == "NFC"
