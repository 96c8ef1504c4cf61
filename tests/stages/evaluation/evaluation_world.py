"""A small world to evaluate in: a tokenizer, random models, a tokens artifact and question sets, all made here."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from stages.corpus.reading.listing import Listing, list_files
from stages.evaluation.config import EvaluationConfig
from stages.evaluation.language_model import LanguageModel, load_model
from stages.store import Artifact, Config, Stage, Store
from tests.support import EOS, byte_level_tokenizer

ROW, SHARD_ROWS = 32, 4
WORDS = ["the", "gene", "of", "a", "rare", "disease", "is", "found", "in", "patients", "with", "fever,"]
WORDS += ["π-helix", "naïve", "病", "cells;", "drug", "(2", "mg)"]


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def make_questions(count: int, options: int = 4, seed: int = 0, context: bool = False) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "id": f"q{number}",
            "question": sentence(rng, rng.randint(3, 12)) + "?",
            "options": [sentence(rng, rng.randint(1, 5)) + f" {letter}" for letter in "abcd"[:options]],
            "answer": rng.randrange(options),
            **({"context": sentence(rng, rng.randint(20, 90))} if context else {}),
        }
        for number in range(count)
    ]


def write_set(path: Path, rows: Sequence[dict[str, Any]]) -> Listing:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return list_files(path)


def train_tokenizer(folder: Path, vocabulary: int = 330) -> Any:
    from transformers import AutoTokenizer

    rng = random.Random(1)
    tokenizer = byte_level_tokenizer((sentence(rng, 40) for _ in range(50)), vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": EOS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(folder)


def crossing_tokenizer() -> Any:
    """A byte-level BPE without split, whose merges join the prompt's end with the option's beginning."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(":", "Ġ"), (":Ġ", "k"), (":Ġk", "i"), (":Ġki", "d"), ("Ġ", "l"), ("r", ":")]
    tokens = [EOS, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS)


def write_model(folder: Path, tokenizer: Any, seed: int, max_length: int = 64) -> None:
    """A random Qwen3 of two layers, its head scaled so that log-likelihoods differ well."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=max_length,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def token_bytes(tokenizer: Any) -> np.ndarray:
    """UTF-8 bytes of each token; a byte-level token has one character a byte."""
    sizes = np.array([len(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))], dtype=np.int32)
    sizes[tokenizer.all_special_ids] = 0
    return sizes


def write_tokens(file: Callable[[str], Path], tokenizer: Any, parts: dict[str, dict[str, list[str]]]) -> None:
    """A tokens artifact in the contract's form. `parts`: "" and "heldout" -> source -> texts."""
    tokenizer_folder = file("tokenizer/tokenizer.json").parent
    tokenizer.save_pretrained(tokenizer_folder)
    file("tokenizer/tokenizer_config.json")
    np.save(file("token_bytes.npy"), token_bytes(tokenizer))
    info = {
        "sequence_length": ROW,
        "vocabulary_size": len(tokenizer),
        "eos_id": tokenizer.eos_token_id,
        "shard_rows": SHARD_ROWS,
        "dtype": "uint16",
    }
    file("stream.json").write_text(json.dumps(info))
    for part, sources in parts.items():
        prefix = f"{part}/" if part else ""
        shards = []
        for source, texts in sources.items():
            stream: list[int] = []
            rows = []
            for number, text in enumerate(texts):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                doc_id = hashlib.blake2b(f"{source}{number}{text}".encode(), digest_size=16).hexdigest()
                rows.append((doc_id, f"{source}#{number}", "CC0-1.0", len(stream), len(ids), len(text.encode())))
                stream += [*ids, tokenizer.eos_token_id]
            names = ("doc_id", "uri", "license", "start", "length", "bytes")
            table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
            _write_ipc(file(f"{prefix}docs/{source}.arrow"), table)
            whole = len(stream)
            stream += [tokenizer.eos_token_id] * (-whole % ROW)
            matrix = np.array(stream, dtype=np.uint16).reshape(-1, ROW)
            for number, start in enumerate(range(0, len(matrix), SHARD_ROWS)):
                cut = matrix[start : start + SHARD_ROWS]
                column = pa.FixedSizeListArray.from_arrays(pa.array(cut.reshape(-1)), ROW)
                path = file(f"{prefix}shards/{source}/{number:05}.arrow")
                _write_ipc(path, pa.table({"tokens": column}))
                shard = {"source": source, "number": number, "rows": len(cut)}
                shards.append(shard | {"tokens": min(cut.size, whole - start * ROW), "bytes": path.stat().st_size})
        pq.write_table(pa.Table.from_pylist(shards), file(f"{prefix}shards.parquet"))


def _write_ipc(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


class _Empty(Config):
    name: str = ""


def make_artifact(store: Store, kind: str, name: str, fill: Callable[[Callable[[str], Path]], None]) -> Artifact:
    stage: Stage[_Empty] = Stage(kind, 1, lambda config, inputs, writer: fill(writer.file))
    return stage.run(_Empty(name=name), {}, store)


@dataclass(frozen=True)
class World:
    """All that an evaluation needs."""

    store: Store
    folder: Path
    tokenizer: Any
    tokens: Artifact
    models: dict[str, Artifact]
    heldout: dict[str, list[str]]
    train: dict[str, list[str]]

    def model(self, name: str = "one", **config: Any) -> LanguageModel:
        return load_model(self.models[name].local("weights"), EvaluationConfig(device="cpu", **config))


def make_world(folder: Path) -> World:
    store = Store(folder / "store")
    tokenizer = train_tokenizer(folder / "tokenizer")
    other = train_tokenizer(folder / "other", vocabulary=290)
    rng = random.Random(7)
    heldout = {
        "books": ["π", *(sentence(rng, rng.randint(2, 150)) for _ in range(12))],
        "notes": ["病 cells", *(sentence(rng, rng.randint(2, 40)) for _ in range(8))],
    }
    train = {source: [sentence(rng, 60) for _ in range(25)] for source in ("books", "notes", "web")}
    tokens = make_artifact(
        store, "tokens", "t", lambda file: write_tokens(file, tokenizer, {"": train, "heldout": heldout})
    )

    def fill(seed: int, own: Any) -> Callable[[Callable[[str], Path]], None]:
        def write(file: Callable[[str], Path]) -> None:
            write_model(file("weights/config.json").parent, own, seed)
            for name in ("model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
                file(f"weights/{name}")

        return write

    models_ = {
        name: make_artifact(store, "model", name, fill(seed, own))
        for name, seed, own in (("one", 1, tokenizer), ("two", 2, tokenizer), ("other", 3, other))
    }
    return World(store, folder, tokenizer, tokens, models_, heldout, train)
