"""The tokenizer: byte-level BPE with Llama-3's split, trained here, or one that exists already (`adopt.py`).

Ours knows one special token, `<|endoftext|>`, id 0: it ends every document and pads. Ids 1 to 256 are the bytes, in the
order of their byte-level characters; then come the merges in the order in which they were learned. There is no
normaliser, so text decodes to exactly the bytes that were encoded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.tokens.aside import written_aside

log = logging.getLogger(__name__)

EOS = "<|endoftext|>"
EOS_ID = 0

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The `pat_str` of Llama 3's tokenizer, unchanged: encoders that are fast for known splits then give the same ids."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CHAT_TEMPLATE = "chat_template.jinja"
"""File of the chat template that is used unless another is asked for, where transformers looks first."""
DEFAULT_TEMPLATE = "default"
"""Its name among several."""
MORE_TEMPLATES = "additional_chat_templates"
"""Folder of further templates, `NAME.jinja`."""


_MODEL = ',"model":'


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and the tokens that it takes from outside the text."""

    tokenizer: Tokenizer
    eos: str
    pad: str
    extra: dict[str, str]
    """Other named special tokens (`bos_token`, `unk_token`) of an existing tokenizer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of an existing tokenizer's `tokenizer_config.json` that stay as they are."""
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """Jinja chat templates of an existing tokenizer by name; `default` is the one that is used unless asked."""

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
    def _json(self) -> tuple[dict[str, Any], str]:
        """`tokenizer.json` without its model, and the rest of the text, from the model on."""
        return split_json(self.tokenizer.to_str())

    @property
    def content(self) -> dict[str, Any]:
        """What stands in `tokenizer.json`, but for the model."""
        return self._json[0]

    @cached_property
    def text_json(self) -> str:
        """`tokenizer.json` for an encoder of text: without special tokens, which are text there, wrapping and cutting.

        Ids stay as they are: a special token that has a place in the model's vocabulary keeps it, and no merge leads
        there.
        """
        content, model = self._json
        added = [token for token in content["added_tokens"] if not token["special"]]
        without = {"added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
        return orjson.dumps({**content, **without}).decode()[:-1] + model

    @cached_property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        return max(*self._vocabulary.values(), *self.tokenizer.get_added_tokens_decoder()) + 1

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        """Id of each token in byte-level characters, without added ones."""
        return dict(self.tokenizer.get_vocab(with_added_tokens=False))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; no special token is added or recognised."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def token_bytes(self) -> NDArray[np.int32]:
        """int32 [V]: UTF-8 bytes that each token stands for; 0 for special tokens and ids without a token."""
        out = np.zeros(self.vocabulary_size, dtype=np.int32)
        vocabulary = self._vocabulary
        # a byte-level token has one character a byte
        out[np.fromiter(vocabulary.values(), np.int64)] = np.fromiter(map(len, vocabulary), np.int32)
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
            **self.settings,
            **special,
        }
        # As `save_pretrained` writes them; Python's own encoder takes half a second for a vocabulary of 16,384.
        contents = (
            self.tokenizer.to_str(pretty=True),
            *(json.dumps(c, ensure_ascii=False, indent=2) for c in (config, special)),
        )
        files = {name: f"{content}\n".encode() for name, content in zip(FILES, contents, strict=True)}
        for name, template in self.chat_templates.items():
            path = CHAT_TEMPLATE if name == DEFAULT_TEMPLATE else f"{MORE_TEMPLATES}/{name}.jinja"
            files[path] = template.encode()
        return files


def split_json(text: str) -> tuple[dict[str, Any], str]:
    """A tokenizer's JSON as the library writes it, which ends with the model: what stands before, and `,"model":...`.

    A vocabulary of 128,000 with its merges is half a million Python objects, and nobody looks at them.
    """
    at = -1
    while True:
        at = text.index(_MODEL, at + 1)
        try:  # a special token may be called "model": what stands before that is not whole
            return dict(orjson.loads(text[:at] + "}")), text[at:]
        except orjson.JSONDecodeError:
            continue


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


def train_once(path: Path, texts: Iterable[list[str]], vocabulary: int) -> TextTokenizer:
    """`train`, unless an earlier attempt at the same tokenizer got as far as leaving it at `path`."""
    try:
        return TextTokenizer(Tokenizer.from_str(path.read_text()), EOS, EOS, {})
    except FileNotFoundError:
        pass
    except Exception as error:  # the library raises bare Exception
        log.warning("tokens: %s is damaged and made again: %s", path, error)
    tokenizer = train(texts, vocabulary)
    with written_aside(path) as aside:
        aside.write_text(tokenizer.tokenizer.to_str())
    return tokenizer


def _batches(texts: Iterable[list[str]]) -> Iterator[list[str]]:
    yield from texts
