"""The exported folder, as somebody without this repository would use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from models.decoder import Decoder
from models.huggingface import load_decoder, load_weights, to_config
from models.sizes import config_for_size
from serving.model_folder import check_model_folder
from stages.store import Artifact, ArtifactWriter, InputError, Store
from stages.training.export import ExportConfig, export
from tests.stages.training.prepared import write_weights

WORDS = {"<|endoftext|>": 0, **{letter: n + 1 for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz ")}}


def _tokens(store: Store, files: Mapping[str, str] | None = None, **extra: str) -> Artifact:
    writer = ArtifactWriter(store, f"tokens/{len(extra)}", "tokens", 1, "0" * 32, {}, {})
    writer.put("tokenizer/tokenizer.json", Tokenizer(models.BPE(WORDS, [])).to_str().encode())
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    described = names | {"tokenizer_class": "PreTrainedTokenizerFast"} | extra
    writer.put("tokenizer/tokenizer_config.json", json.dumps(described).encode())
    writer.put("tokenizer/special_tokens_map.json", json.dumps(names).encode())
    for name, text in (files or {}).items():
        writer.put(f"tokenizer/{name}", text.encode())
    return writer.commit()


def _training(store: Store, tokens: Artifact, size: str = "1m") -> Artifact:
    """A run's artifact with random weights."""
    shape = config_for_size(size, len(WORDS), 64)
    torch.manual_seed(0)
    decoder = Decoder(shape, 0)
    weights = {name: torch.randn(p.shape) * 0.1 for name, p in decoder.named_parameters()}
    writer = ArtifactWriter(store, f"training/{size}", "training", 1, "1" * 32, {}, {"tokens": tokens.digest})
    write_weights(writer, weights)
    writer.put("config.json", json.dumps(to_config(shape, 0)).encode())
    writer.put("loss.parquet", b"")
    writer.metrics["bits_per_byte"] = 1.5
    return writer.commit()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_stock_transformers_loads_it_and_agrees(store: Store):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = _tokens(store)
    done = export.run(ExportConfig(dtype="float32"), {"training": _training(store, tokens), "tokens": tokens}, store)
    folder = done.local("weights")
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert type(stock).__name__ == "Qwen3ForCausalLM" and stock.config.vocab_size % 128 == 0
    assert tokenizer.eos_token_id == stock.generation_config.eos_token_id == 0
    assert stock.generation_config.pad_token_id == 0
    ids = torch.tensor([list(range(1, 28))])
    ours = load_decoder(json.loads(done.read("weights/config.json")), load_weights(folder / "model.safetensors"))
    torch.testing.assert_close(ours(ids), stock(ids).logits, atol=1e-4, rtol=0)
    assert done.manifest.metrics["bits_per_byte"] == 1.5


def test_it_is_bf16_by_default_and_contains_no_code(store: Store):
    tokens = _tokens(store)
    done = export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)
    names = {entry.path for entry in done.files()}
    weights = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names == {f"weights/{name}" for name in weights | {"tokenizer_config.json", "special_tokens_map.json"}}
    tensors = load_weights(done.local("weights/model.safetensors"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert json.loads(done.read("weights/config.json"))["dtype"] == "bfloat16"
    assert "auto_map" not in json.loads(done.read("weights/config.json"))


def test_chat_templates_are_exported_with_the_tokenizer(store: Store):
    from transformers import AutoTokenizer

    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    files = {"chat_template.jinja": template, "additional_chat_templates/twice.jinja": template * 2}
    tokens = _tokens(store, files)
    done = export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)
    tokenizer = AutoTokenizer.from_pretrained(done.local("weights"))
    assert tokenizer.chat_template == {"default": template, "twice": template * 2}
    assert tokenizer.apply_chat_template([{"content": "ab c"}], tokenize=False, chat_template="twice") == "ab cab c"
    assert check_model_folder(done.local("weights")).has_chat_template, "the gateway lets chats through"


def test_tokens_of_another_run_are_refused(store: Store):
    run = _training(store, _tokens(store))
    with pytest.raises(InputError, match="was not trained on"):
        export.run(ExportConfig(), {"training": run, "tokens": _tokens(store, name="other")}, store)


def test_a_tokenizer_that_brings_code_is_refused(store: Store):
    tokens = _tokens(store, auto_map="x.Y")
    with pytest.raises(InputError, match="auto_map"):
        export.run(ExportConfig(), {"training": _training(store, tokens), "tokens": tokens}, store)
