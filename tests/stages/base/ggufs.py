"""A made-up GGUF file: a small Llama with a byte-level BPE, written by gguf's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer

from stages.tokens.tokenizer import train

HIDDEN, LAYERS, HEADS, GROUPS, HEAD, WIDE = 64, 2, 4, 2, 16, 96
SPECIAL = ("<|begin|>", "<|text|>", "<|turn|>")
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|turn|>{% endfor %}"
BLOCKS = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and merges."""
    import json

    ours = train([["the dose of aspirin did not change in the liver, 12 mg, and the dose was low"] * 4], 290).tokenizer
    model = json.loads(Tokenizer.from_str(ours.to_str()).to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return sorted(ids, key=ids.__getitem__), merges


def tensors(rows: int) -> dict[str, np.ndarray]:
    """Random float32 weights by GGUF's names."""
    numbers = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (HEADS * HEAD, HIDDEN),
            f"blk.{layer}.attn_k.weight": (GROUPS * HEAD, HIDDEN),
            f"blk.{layer}.attn_v.weight": (GROUPS * HEAD, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HEADS * HEAD),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (WIDE, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (WIDE, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, WIDE),
        }
    return {name: (numbers.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}


def save_gguf(
    path: Path,
    architecture: str = "llama",
    settings: Mapping[str, Any] | None = None,
    changes: Mapping[str, np.ndarray | None] | None = None,
    split: str | None = "smollm",
    quantized: bool = True,
) -> dict[str, np.ndarray]:
    """Writes the file; returns its numbers as they are read: blocks of Q8_0 and Q4_0, norms of F32.

    Args:
        settings: more of them, by key: texts, integers, fractions.
        changes: other tensors by name; None leaves one out.
        split: the tokenizer's rule of splitting text.
    """
    tokens, merges = vocabulary()
    special = len(tokens)
    tokens = [*tokens, *SPECIAL]
    kinds = [gguf.TokenType.NORMAL] * special + [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(50_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    if split is not None:
        writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(special)
    writer.add_eos_token_id(special + 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for key, value in (settings or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    found: dict[str, np.ndarray] = {}
    for number, (name, values) in enumerate((tensors(len(tokens)) | dict(changes or {})).items()):
        if values is None:
            continue
        kind = BLOCKS[number % len(BLOCKS)]
        if values.ndim == 1 or not quantized:
            writer.add_tensor(name, values)
            found[name] = values
            continue
        blocks = gguf.quantize(values, kind)
        writer.add_tensor(name, blocks, raw_dtype=kind)
        found[name] = gguf.dequantize(blocks, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found
