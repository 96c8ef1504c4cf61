"""The tokenizer: byte-level BPE with Llama-3's split, trained here, or one that exists already.

Ours knows one special token, `<|endoftext|>`, id 0: it ends every document and pads. Ids 1 to 256 are the bytes, in the
order of their byte-level characters; then come the merges in the order in which they were learned. There is no
normaliser, so text decodes to exactly the bytes that were encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.artifact.errors import InputError
from stages.tokens.json_text import indented

EOS = "<|endoftext|>"
EOS_ID = 0

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The `pat_str` of Llama 3's tokenizer, unchanged: encoders that are fast for known splits then give the same ids."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Folder(Protocol):
    """A listed folder of files; the listing of an existing tokenizer."""

    location: str
    files: tuple[Any, ...]

    def open(self, name: str) -> BinaryIO: ...


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the tokens that it takes from outside the text."""

    tokenizer: Tokenizer
    eos: str
    pad: str
    extra: dict[str, str]
    """Other named special tokens (`bos_token`, `unk_token`) of an existing tokenizer."""

    def __post_init__(self) -> None:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # A document may contain "<|endoftext|>" as text; then it is text.
        self.tokenizer.encode_special_tokens = True

    @property
    def eos_id(self) -> int:
        index = self.tokenizer.token_to_id(self.eos)
        assert index is not None, self.eos
        return index

    @cached_property
    def content(self) -> dict[str, Any]:
        """What stands in `tokenizer.json`."""
        return dict(json.loads(self.tokenizer.to_str()))

    @cached_property
    def text_json(self) -> str:
        """`tokenizer.json` for an encoder of text: without special tokens, which are text there, wrapping and cutting.

        Ids stay as they are: a special token that has a place in the model's vocabulary keeps it, and no merge leads
        there.
        """
        added = [token for token in self.content["added_tokens"] if not token["special"]]
        without = {"added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
        return json.dumps({**self.content, **without}, ensure_ascii=False)

    @cached_property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; no special token is added or recognised."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def token_bytes(self) -> NDArray[np.int32]:
        """int32 [V]: UTF-8 bytes that each token stands for; 0 for special tokens and ids without a token."""
        out = np.zeros(self.vocabulary_size, dtype=np.int32)
        for token, index in self.tokenizer.get_vocab(with_added_tokens=False).items():
            out[index] = len(token)  # a byte-level token has one character a byte
        for index, added in self.tokenizer.get_added_tokens_decoder().items():
            out[index] = 0 if added.special else len(added.content.encode())
        return out

    def files(self, sequence_length: int) -> dict[str, bytes]:
        """The folder that `transformers.AutoTokenizer` loads: file name to content."""
        special = {"eos_token": self.eos, "pad_token": self.pad, **self.extra}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": sequence_length,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **special,
        }
        contents = (self.content, config, special)
        return {name: indented(content).encode() + b"\n" for name, content in zip(FILES, contents, strict=True)}


def train(texts: Iterable[list[str]], vocabulary: int) -> TextTokenizer:
    """Trains the BPE on batches of texts. Equal texts give equal tokenizers, in any order and on any number of threads.

    A pair must occur twice to be merged, so a small corpus gives fewer than `vocabulary` tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(EOS, special=True, normalized=False)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    found = TextTokenizer(tokenizer, EOS, EOS, {})
    assert found.eos_id == EOS_ID
    return found


def _batches(texts: Iterable[list[str]]) -> Iterator[list[str]]:
    yield from texts


def adopt(folder: Folder) -> TextTokenizer:
    """An existing tokenizer from a listed folder.

    Raises:
        InputError: it is not a byte-level fast tokenizer with an EOS, or it brings code.
    """
    names = {entry.name for entry in folder.files}
    if FILES[0] not in names:
        raise InputError(f"tokenizer: {folder.location} has no {FILES[0]}; save it with `save_pretrained` first")
    settings = {name: _json(folder, name) if name in names else {} for name in FILES}
    if "auto_map" in settings[FILES[1]]:
        raise InputError(f"tokenizer: {folder.location}/{FILES[1]} asks for code (auto_map); that is refused")
    content, named = settings[FILES[0]], {**settings[FILES[1]], **settings[FILES[2]]}
    if not _byte_level(content.get("pre_tokenizer")) or not _keeps_text(content.get("normalizer")):
        raise InputError(
            f"tokenizer: {folder.location} is not byte-level, or changes text before it splits it; the bytes that a "
            "token stands for would be unknown. Use a byte-level BPE (Llama 3, Qwen, GPT-2, SmolLM), or train one"
        )
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"tokenizer: {folder.location}/{FILES[0]} cannot be loaded: {error}") from error
    special = {added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special}
    eos = _token(named.get("eos_token")) or EOS
    if eos not in special:
        raise InputError(f"tokenizer: {folder.location} has no special token {eos!r} to end documents with")
    pad = _token(named.get("pad_token")) or eos
    extra = {name: _token(named.get(name)) for name in ("bos_token", "unk_token")}
    return TextTokenizer(tokenizer, eos, pad, {name: token for name, token in extra.items() if token})


def _json(folder: Folder, name: str) -> dict[str, Any]:
    with folder.open(name) as stream:
        try:
            return dict(json.loads(stream.read()))
        except ValueError as error:
            raise InputError(f"tokenizer: {folder.location}/{name} is not valid JSON: {error}") from error


def _token(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _byte_level(step: dict[str, Any] | None) -> bool:
    if not step:
        return False
    return step["type"] == "ByteLevel" or any(_byte_level(inner) for inner in step.get("pretokenizers", ()))


def _keeps_text(normalizer: dict[str, Any] | None) -> bool:
    """Documents are NFC when they are read, so NFC (Qwen's) changes next to nothing."""
    return not normalizer or normalizer["type"] == "NFC"
