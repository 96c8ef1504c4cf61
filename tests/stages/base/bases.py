"""A made-up base: a small model with random weights, a tokenizer with BOS and two EOS, a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from models.decoder import Decoder
from models.huggingface import SpecialTokens
from models.sizes import Architecture, ModelConfig
from stages.base.folder import FILES
from stages.base.stage import BaseConfig, base
from stages.corpus import list_files
from stages.store import Artifact, Store
from stages.tokens.tokenizer import train
from tests.models.small import randomize, save_decoder

VOCABULARY, ROWS = 299, 320
"""Tokens of the tokenizer, and rows of the embedding: padded, as published models are."""
BOS, END_OF_TEXT, END_OF_TURN = 296, 297, 298
TOKENS = SpecialTokens((END_OF_TEXT, END_OF_TURN), bos_id=BOS)
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|turn|>{% endfor %}"
CARD = "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n"
CONTEXT = 128


def shape(architecture: Architecture = "LlamaForCausalLM", tied: bool = True) -> ModelConfig:
    return ModelConfig(ROWS, 64, 2, 4, 2, 16, 96, tied=tied, context=CONTEXT, rope_theta=5e4, architecture=architecture)


def save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ours = train([["the dose of aspirin did not change in the liver, and the dose was low"] * 4], BOS).tokenizer
    tokenizer = Tokenizer.from_str(ours.to_str())
    names = ("<|begin|>", "<|text|>", "<|turn|>")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert tokenizer.get_vocab_size() == VOCABULARY
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": names[0], "eos_token": names[1], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def save_base(folder: Path, architecture: Architecture = "LlamaForCausalLM", tied: bool = True, **changes: Any) -> Path:
    """A folder as `save_pretrained` writes it. Changes are of its `config.json`."""
    model = randomize(Decoder(shape(architecture, tied), END_OF_TEXT))
    assert isinstance(model, Decoder)
    save_decoder(model, folder, TOKENS, **changes)
    save_tokenizer(folder)
    sampling = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "cache_implementation": "static"}
    (folder / "generation_config.json").write_text(json.dumps(sampling))
    (folder / "README.md").write_text(CARD)
    return folder


def import_base(folder: Path, store: Store, **settings: Any) -> Artifact:
    """The artifact of a base."""
    return base.run(BaseConfig(**settings), {"folder": list_files(folder, FILES)}, store)
