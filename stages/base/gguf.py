"""A GGUF file becomes a model's folder of the usual form: config.json, SafeTensors weights, tokenizer.

transformers reads the file: it makes numbers of the blocks, undoes llama.cpp's order of rows and builds the tokenizer.
Before, the header is checked here: what transformers would pass over (a rope scaling, a bias, a missing tensor) would
give another model without a word. Nothing in the file is run: a chat template is text until it is asked for a prompt.

The weights are float32. A quantized number is a scale times a small integer, plus an offset: float32 holds it as
llama.cpp computes it, bfloat16 would round it a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.huggingface import WEIGHTS_INDEX, from_config, to_config
from models.weight_files import plan_weight_files, write_weight_file
from stages.base.gguf_header import Header, read_header

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".gguf"
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Hugging Face's classes by GGUF's names of architectures. Mistral's files say llama."""
_LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
_MORE = {
    "llama": (),
    "qwen2": ("attn_q.bias", "attn_k.bias", "attn_v.bias"),
    "qwen3": ("attn_q_norm.weight", "attn_k_norm.weight"),
}
"""Tensors of a layer besides those of all architectures."""
_READ = (
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "vocab_size",
)
"""Settings of an architecture that are taken into the config."""
_IDLE = (0, 0.0, False, "", "none")
"""Values by which other settings say that they do nothing."""
_GPT2_SPLITS = ("gpt-2", "gpt2", "mpt", "olmo", "jais")
"""Rules of splitting text that are GPT-2's, which transformers takes where it does not know a rule."""
_DIGIT_SPLITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
"""GPT-2's after every digit was split off, as llama.cpp has them."""
_OF_THIS_CALL = ("is_local", "local_files_only")
"""What transformers 5 writes into a tokenizer's settings about how it was loaded."""


def convert(file: Path, folder: Path) -> Header:
    """Writes a folder in Hugging Face's form from a GGUF file. The checks of any base are still to be made on it.

    Args:
        file: it should be alone in its folder, from which transformers would also take other files.
        folder: exists; gets config.json, the weights in float32 and the tokenizer's files.

    Returns:
        The file's header.

    Raises:
        ValueError: the file is damaged, of an architecture, feature or quantization type that is not read, or its
            tokenizer is not a byte-level BPE.
        OSError: the disk is full.
    """
    header = read_header(file)
    _check(header)
    with _offline():
        try:
            config, weights, tokenizer = _read(file, header)
        except (MemoryError, OSError):
            raise
        except Exception as error:  # transformers, gguf and tokenizers raise errors of any kind on a damaged file
            reason = str(error).strip().split("\n", 1)[0]
            raise ValueError(f"transformers cannot read it ({type(error).__name__}: {reason})") from error
        shape, tokens = from_config(config)
        (folder / "config.json").write_text(json.dumps(to_config(shape, tokens), indent=2) + "\n")
        _write_weights(weights, folder)
        tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    own = {key: value for key, value in settings.items() if key not in _OF_THIS_CALL}
    (folder / "tokenizer_config.json").write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n")
    return header


def _check(header: Header) -> None:
    """Refuses a file of which transformers would make another model.

    Raises:
        ValueError: saying what, and what to do.
    """
    if (header.integer("split.count") or 1) > 1:
        raise ValueError("it is one of several files of a model; put them together with `llama-gguf-split --merge`")
    architecture = header.text("general.architecture")
    if architecture not in _CLASSES:
        raise ValueError(
            f"its architecture is {architecture!r}; {', '.join(_CLASSES)} are read (Mistral's files say llama)"
        )
    for key, value in header.settings.items():
        name = key.removeprefix(f"{architecture}.")
        if name != key and name not in _READ and value not in _IDLE:
            raise ValueError(
                f"{key} is {value!r}, which would be lost in reading; take the model's original SafeTensors weights"
            )
    _check_shape(header, architecture)
    _check_tokenizer(header)


def _check_shape(header: Header, architecture: str) -> None:
    """Compares the settings, of which memory is taken, with the tensors, which are in the file."""

    def setting(name: str, default: int | None = None) -> int:
        value = header.settings.get(f"{architecture}.{name}", default)
        if type(value) is not int or value < 1:
            raise ValueError(f"{architecture}.{name} is {value!r}; must be a positive integer")
        return value

    layers, hidden, heads = setting("block_count"), setting("embedding_length"), setting("attention.head_count")
    if layers > len(header.tensors):
        raise ValueError(f"{architecture}.block_count is {layers:,}, of {len(header.tensors):,} tensors")
    context = setting("context_length")
    if context > 1 << 30:
        raise ValueError(f"{architecture}.context_length is {context:,}; the file is damaged")
    wanted = {"token_embd.weight", "output_norm.weight"}
    of_layer = [*(f"{name}.weight" for name in _LAYER), *_MORE[architecture]]
    wanted |= {f"blk.{layer}.{name}" for layer in range(layers) for name in of_layer}
    if "rope_freqs.weight" in header.tensors:
        raise ValueError(
            "it has rope_freqs.weight, the rope scaling of Llama 3.1 and later, which would be lost in reading; take "
            "the model's original SafeTensors weights"
        )
    others = sorted(header.tensors.keys() - wanted - {"output.weight"})
    missing = sorted(wanted - header.tensors.keys())
    if others or missing:
        what = f"{others[0]!r} is no tensor of this model" if others else f"{missing[0]!r} is missing"
        raise ValueError(f"its tensors are not those of {architecture} with {layers:,} layers: {what}")
    size = _head_size(header, architecture) or hidden // heads
    groups = setting("attention.head_count_kv", heads)
    rows = header.tensors["token_embd.weight"].shape[0]
    vocabulary = setting("vocab_size", rows)
    if vocabulary != rows:
        raise ValueError(f"{architecture}.vocab_size is {vocabulary:,}, and token_embd.weight has {rows:,} rows")
    feed_forward = setting("feed_forward_length")
    shapes = {
        "token_embd.weight": (rows, hidden),
        "blk.0.attn_q.weight": (heads * size, hidden),
        "blk.0.attn_k.weight": (groups * size, hidden),
        "blk.0.ffn_gate.weight": (feed_forward, hidden),
    }
    for name, shape in shapes.items():
        if header.tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {[*header.tensors[name].shape]}, and the settings say {[*shape]}")


def _head_size(header: Header, architecture: str) -> int | None:
    """Numbers of a head; None if no setting says it."""
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    said = {name: header.settings.get(f"{architecture}.{name}") for name in names}
    found = {value for value in said.values() if value is not None}
    if len(found) > 1 or any(type(value) is not int or value < 1 for value in found):
        raise ValueError(f"its heads have {said}: different sizes for keys, values and rotation are not supported")
    return next(iter(found), None)


def _check_tokenizer(header: Header) -> None:
    kind, split = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise ValueError(
            f"its tokenizer is {kind!r}; a byte-level BPE ('gpt2': Llama 3, Qwen, SmolLM) is needed, since the bytes "
            "of other tokens are not known"
        )
    tokens = header.texts("tokenizer.ggml.tokens")
    rows = header.tensors["token_embd.weight"].shape[0]
    if not tokens or len(tokens) > rows or len(set(tokens)) != len(tokens):
        raise ValueError(f"its tokenizer lists {len(tokens):,} tokens, or some twice, for {rows:,} rows of weights")
    for name in ("bos", "eos", "unknown", "padding"):
        key = f"tokenizer.ggml.{name}_token_id"
        token = header.settings.get(key)
        if token is None and name != "eos":
            continue
        if type(token) is not int or not 0 <= token < len(tokens):
            raise ValueError(f"{key} is {token!r}; must be a token id below {len(tokens):,}")
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if split not in (*_GPT2_SPLITS, *_DIGIT_SPLITS, *GGUF_PRE_TOKENIZER_SPLITS):
        raise ValueError(
            f"its tokenizer splits text by the rule {split!r} (tokenizer.ggml.pre), which is not known here: its ids "
            "would be others than the model's; take the original model"
        )


def _read(file: Path, header: Header) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    """Config, weights by Hugging Face's names, and tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    architecture = header.settings["general.architecture"]
    own: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(file.parent, **own)
    if size := _head_size(header, architecture):
        config.head_dim = size  # transformers does not take it for every architecture
    model, loaded = AutoModelForCausalLM.from_pretrained(
        file.parent, config=config, dtype=torch.float32, output_loading_info=True, **own
    )
    lost = [*loaded["missing_keys"], *loaded["mismatched_keys"]]
    if lost := sorted(str(name) for name in lost if name != "lm_head.weight"):
        raise ValueError(f"{lost[0]} was not found in it")  # and has random numbers now
    if type(model).__name__ != _CLASSES[architecture]:
        raise ValueError(f"it was read as {type(model).__name__}")
    entries = model.config.to_dict() | {"architectures": [_CLASSES[architecture]]}
    del entries["quantization_config"]
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **own)
    if header.text("tokenizer.ggml.pre") in _DIGIT_SPLITS:
        _split_digits(tokenizer)
    return entries, weights, tokenizer


def _split_digits(tokenizer: Any) -> None:
    """Puts the splitting of digits before GPT-2's, which transformers leaves out: `a  2` has other ids with it."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )


def _write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    files, index = plan_weight_files(shapes, "float32")
    for file in files:
        write_weight_file(file, shapes, "float32", weights.__getitem__, folder / file.name)
    if index is not None:
        (folder / WEIGHTS_INDEX).write_bytes(index)


@contextmanager
def _offline() -> Iterator[None]:
    """Within the context no hub is asked, also by libraries that are imported already, and no progress bar is drawn."""
    import huggingface_hub.constants
    import transformers.modeling_gguf_pytorch_utils as reader
    from tqdm import tqdm
    from transformers.utils import logging

    before, bars, level = huggingface_hub.constants.HF_HUB_OFFLINE, reader.tqdm, logging.get_verbosity()
    shown = logging.is_progress_bar_enabled()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    reader.tqdm = partial(tqdm, disable=True)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, reader.tqdm = before, bars
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
