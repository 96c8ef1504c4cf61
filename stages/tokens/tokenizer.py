"""The tokenizer: a byte-level BPE with Llama 3's split trained here, or an existing one (`existing_tokenizer.py`).

A trained one has one special token, `<|endoftext|>`, id 0: it ends every document and is the padding. Ids 1 to 256 are
the bytes, in the order of their byte-level characters, followed by the merges in the order of training. It has no
normalizer, so text decodes to exactly the bytes that were encoded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.tokens.atomic_write import atomic_write
from stages.tokens.long_words import MAX_WORD_CHARACTERS, LongWords

log = logging.getLogger(__name__)

EOS = "<|endoftext|>"
EOS_ID = 0

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The `pat_str` of Llama 3's tokenizer, unchanged: fast encoders support this split and give the same ids."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CHAT_TEMPLATE = "chat_template.jinja"
"""File of the default chat template, the first that transformers looks for."""
DEFAULT_TEMPLATE = "default"
"""Name of the default template among several."""
MORE_TEMPLATES = "additional_chat_templates"
"""Folder of further templates, `NAME.jinja`."""


_MODEL = ',"model":'


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer with its special tokens, settings and chat templates."""

    tokenizer: Tokenizer
    eos: str
    pad: str
    extra: dict[str, str]
    """Other named special tokens (`bos_token`, `unk_token`) of an existing tokenizer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of an existing tokenizer's `tokenizer_config.json` that are written unchanged."""
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    """Jinja chat templates of an existing tokenizer by name; `default` is used unless another is requested."""
    long_words: LongWords = field(default_factory=LongWords)
    """Words that were cut when it was trained."""

    def __post_init__(self) -> None:
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        # "<|endoftext|>" in a document is encoded as text.
        self.tokenizer.encode_special_tokens = True

    @property
    def eos_id(self) -> int:
        index = self.tokenizer.token_to_id(self.eos)
        assert index is not None, self.eos
        return index

    @cached_property
    def _json(self) -> tuple[dict[str, Any], str]:
        """`tokenizer.json` without its model, and the text from the model on."""
        return split_json(self.tokenizer.to_str())

    @property
    def content(self) -> dict[str, Any]:
        """`tokenizer.json` without the model."""
        return self._json[0]

    @cached_property
    def text_json(self) -> str:
        """`tokenizer.json` for encoding text: without special tokens, post-processor, truncation and padding.

        Ids do not change: a special token in the model's vocabulary keeps its id, and no merge produces it.
        """
        content, model = self._json
        added = [token for token in content["added_tokens"] if not token["special"]]
        without = {"added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
        return orjson.dumps({**content, **without}).decode()[:-1] + model

    @cached_property
    def vocabulary_size(self) -> int:
        """All ids are smaller."""
        return max(*self._vocabulary.values(), *self.tokenizer.get_added_tokens_decoder()) + 1

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        """Ids by token in byte-level characters, without added tokens."""
        return dict(self.tokenizer.get_vocab(with_added_tokens=False))

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text; no special token is added or recognised."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def token_bytes(self) -> NDArray[np.int32]:
        """int32 [V]: UTF-8 bytes of each token; 0 for special tokens and unused ids."""
        out = np.zeros(self.vocabulary_size, dtype=np.int32)
        vocabulary = self._vocabulary
        # a byte-level token has one character per byte
        out[np.fromiter(vocabulary.values(), np.int64)] = np.fromiter(map(len, vocabulary), np.int32)
        for index, added in self.tokenizer.get_added_tokens_decoder().items():
            out[index] = 0 if added.special else len(added.content.encode())
        return out

    def files(self, sequence_length: int) -> dict[str, bytes]:
        """The files of a folder for `transformers.AutoTokenizer`: content by file name."""
        special = {"eos_token": self.eos, "pad_token": self.pad, **self.extra}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": sequence_length,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **self.settings,
            **special,
        }
        # As `save_pretrained` writes them. Python's JSON encoder would take half a second for a vocabulary of 16,384.
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
    """Splits a tokenizer's JSON, which the library ends with the model: the entries before, and `,"model":...`.

    Parsing a model with 128,000 tokens would create half a million Python objects that nobody needs.
    """
    at = -1
    while True:
        at = text.index(_MODEL, at + 1)
        try:  # a special token may be named "model": the JSON before it is incomplete
            return dict(orjson.loads(text[:at] + "}")), text[at:]
        except orjson.JSONDecodeError:
            continue


def train(texts: Iterable[list[str]], vocabulary: int) -> TextTokenizer:
    """Trains the BPE on batches of texts. The result does not depend on their order or on the number of threads.

    A pair must occur twice to be merged, so a small corpus gives fewer than `vocabulary` tokens. Words longer than
    `MAX_WORD_CHARACTERS` are trained on in parts of that length.
    """
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.FixedLength(MAX_WORD_CHARACTERS), to_bytes]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(EOS, special=True, normalized=False)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    long_words = LongWords()
    tokenizer.train_from_iterator(long_words.count(texts, split), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    found = TextTokenizer(tokenizer, EOS, EOS, {}, long_words=long_words)
    assert found.eos_id == EOS_ID
    return found


def train_once(path: Path, texts: Iterable[list[str]], vocabulary: int) -> TextTokenizer:
    """The tokenizer that an earlier attempt saved at `path`, else the result of `train`, saved there."""
    try:
        saved = json.loads(path.read_text())
        long_words = LongWords(**saved["long_words"])
        return TextTokenizer(Tokenizer.from_str(saved["tokenizer"]), EOS, EOS, {}, long_words=long_words)
    except FileNotFoundError:
        pass
    except Exception as error:  # the library raises bare Exception
        log.warning("tokens: %s is damaged, training again: %s", path, error)
    tokenizer = train(texts, vocabulary)
    with atomic_write(path) as temporary:
        saved = {"tokenizer": tokenizer.tokenizer.to_str(), "long_words": asdict(tokenizer.long_words)}
        temporary.write_text(json.dumps(saved))
    return tokenizer
