"""An existing tokenizer: its vocabulary, special tokens, settings and chat templates are taken over as they are.

What is written again (`TextTokenizer.files`) loads in `transformers.AutoTokenizer` with the same ids and the same chat
prompts as the folder it came from. Only what asks for code, and what cuts or pads texts, is left behind.
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

KEPT = (
    "model_max_length",
    "model_input_names",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "add_prefix_space",
    "split_special_tokens",
    *MORE_SPECIAL,
)
"""Settings that change what a tokenizer does, or what people may ask of it. Others are paths, classes or leftovers."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Named special tokens in the order in which transformers adds those that a vocabulary lacks."""

_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Folder(Protocol):
    """A listed folder of files; the listing of an existing tokenizer."""

    location: str
    files: tuple[Any, ...]

    def open(self, name: str) -> BinaryIO: ...


def adopt(folder: Folder) -> TextTokenizer:
    """An existing tokenizer from a listed folder.

    Raises:
        InputError: it is not a byte-level fast tokenizer with an EOS, its files contradict each other, or it brings
            code.
    """
    names = {entry.name for entry in folder.files}
    if TOKENIZER not in names:
        raise InputError(f"tokenizer: {folder.location} has no {TOKENIZER}; save it with `save_pretrained` first")
    config, special = (_json(folder, name) if name in names else {} for name in (CONFIG, SPECIAL))
    if "auto_map" in config:
        raise InputError(f"tokenizer: {folder.location}/{CONFIG} asks for code (auto_map); that is refused")
    tokenizer = _load(folder)
    if not _byte_level(_step(tokenizer.pre_tokenizer)) or not _keeps_text(_step(tokenizer.normalizer)):
        raise InputError(
            f"tokenizer: {folder.location} is not byte-level, or changes text before it splits it; the bytes that a "
            "token stands for would be unknown. Use a byte-level BPE (Llama 3, Qwen, GPT-2, SmolLM), or train one"
        )
    _add_listed(folder, tokenizer, config.get("added_tokens_decoder") or {})
    named = _named({**config, **special})
    eos = named.get("eos_token", EOS)
    if eos not in _special(tokenizer):
        raise InputError(
            f"tokenizer: {folder.location} has no special token {eos!r} to end documents with; name one as `eos_token` "
            f"in {CONFIG}, and list it as special in {TOKENIZER}"
        )
    _add_missing(tokenizer, named.values())
    pad = named.pop("pad_token", eos)
    named.pop("eos_token", None)
    settings = {key: config[key] for key in KEPT if config.get(key) is not None}
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


def _named(settings: Mapping[str, Any]) -> dict[str, str]:
    """Named special tokens by name, those of the model's own (`image_token`) after the usual ones."""
    own = [key for key in settings if key.endswith("_token") and key not in NAMED]
    found = {key: _content(settings.get(key)) for key in (*NAMED, *own)}
    return {key: token for key, token in found.items() if isinstance(token, str)}


def _contents(tokens: Any) -> Any:
    """The spellings of a list, or of a dictionary by name, of further special tokens."""
    if isinstance(tokens, dict):
        return {name: _content(token) for name, token in tokens.items()}
    return [_content(token) for token in tokens]


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _special(tokenizer: Tokenizer) -> set[str]:
    return {added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special}


def _add_listed(folder: Folder, tokenizer: Tokenizer, listed: Mapping[str, Any]) -> None:
    """Adds tokens that stand in the settings' `added_tokens_decoder` only, under the ids that are given there.

    Raises:
        InputError: the id is another's.
    """
    there = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
    for index, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        if entry["content"] in there:
            continue
        options = {key: entry[key] for key in ("lstrip", "rstrip", "single_word", "normalized") if key in entry}
        token = AddedToken(entry["content"], special=bool(entry.get("special")), **options)
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        got = tokenizer.token_to_id(token.content)
        if got != int(index):
            raise InputError(
                f"tokenizer: {folder.location}/{CONFIG} gives {token.content!r} the id {index}, with {TOKENIZER} it "
                f"has {got}; save the tokenizer again with `save_pretrained`"
            )


def _add_missing(tokenizer: Tokenizer, tokens: Iterable[str]) -> None:
    """Makes tokens special that are not yet, as transformers does when it loads a tokenizer."""
    there = {added.content for added in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for token in dict.fromkeys(tokens) if token not in there]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])


def _chat_templates(folder: Folder, names: set[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name. As in transformers, files take the place of what the settings say.

    Raises:
        InputError: a template that is no text, or whose name could not be a file's.
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
                f"tokenizer: {folder.location} has a chat template {name!r}; its name becomes a file's, so it has "
                "letters, digits, '_', '.', '-' only"
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


def _step(step: Any) -> dict[str, Any] | None:
    """What stands in `tokenizer.json` of one step of a tokenizer's work."""
    return orjson.loads(step.__getstate__()) if step else None


def _byte_level(step: dict[str, Any] | None) -> bool:
    if not step:
        return False
    return step["type"] == "ByteLevel" or any(_byte_level(inner) for inner in step.get("pretokenizers", ()))


def _keeps_text(normalizer: dict[str, Any] | None) -> bool:
    """Documents are NFC when they are read, so NFC (Qwen's) changes next to nothing."""
    return not normalizer or normalizer["type"] == "NFC"
