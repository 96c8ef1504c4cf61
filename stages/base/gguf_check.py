"""Whether transformers would make the model of a GGUF file that is in it, judged by the file's header.

What transformers does not know it passes over: a rope scaling, a bias, a rule of splitting text. What is missing it
draws at random. Either gives another model without a word, so it is refused here.
"""

from __future__ import annotations

from stages.base.gguf_header import Header

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Hugging Face's classes by GGUF's names of architectures. Mistral's files say llama."""
DIGIT_SPLITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
"""Rules of splitting text that are GPT-2's after every digit was split off, as llama.cpp has them."""
_GPT2_SPLITS = ("gpt-2", "gpt2", "mpt", "olmo", "jais")
"""Rules that are GPT-2's, which transformers takes where it does not know a rule."""
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
_IDLE = (0, "", "none")
"""Values by which other settings say that they do nothing; False and 0.0 are equal to 0."""
_MOST_POSITIONS = 1 << 30
_ORIGINAL = "take the model's original SafeTensors weights"


def check(header: Header) -> None:
    """Refuses a file of which transformers would make another model.

    Raises:
        ValueError: saying what, and what to do.
    """
    if (header.integer("split.count") or 1) > 1:
        raise ValueError("it is one of several files of a model; put them together with `llama-gguf-split --merge`")
    architecture = header.text("general.architecture")
    if architecture not in CLASSES:
        raise ValueError(
            f"its architecture is {architecture!r}; {', '.join(CLASSES)} are read (Mistral's files say llama)"
        )
    for key, value in header.settings.items():
        name = key.removeprefix(f"{architecture}.")
        if name != key and name not in _READ and value not in _IDLE:
            raise ValueError(f"{key} is {value!r}, which would be lost in reading; {_ORIGINAL}")
    if "rope_freqs.weight" in header.tensors:
        raise ValueError(
            f"it has rope_freqs.weight, the rope scaling of Llama 3.1 and later, which would be lost in reading; "
            f"{_ORIGINAL}"
        )
    _check_tensors(header, architecture)
    _check_tokenizer(header)


def head_size(header: Header, architecture: str) -> int | None:
    """Numbers of a head; None if no setting says it.

    Raises:
        ValueError: settings contradict each other.
    """
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    said = {name: header.settings.get(f"{architecture}.{name}") for name in names}
    found = {value for value in said.values() if value is not None}
    if len(found) > 1 or any(type(value) is not int or value < 1 for value in found):
        raise ValueError(f"its heads have {said}: different sizes for keys, values and rotation are not supported")
    return next(iter(found), None)


def _check_tensors(header: Header, architecture: str) -> None:
    """Compares the tensors, which are in the file, with the settings, by which memory is taken."""

    def setting(name: str, default: int | None = None) -> int:
        value = header.settings.get(f"{architecture}.{name}", default)
        if type(value) is not int or value < 1:
            raise ValueError(f"{architecture}.{name} is {value!r}; must be a positive integer")
        return value

    layers, hidden, heads = setting("block_count"), setting("embedding_length"), setting("attention.head_count")
    if layers > len(header.tensors):
        raise ValueError(f"{architecture}.block_count is {layers:,}, of {len(header.tensors):,} tensors")
    if (context := setting("context_length")) > _MOST_POSITIONS:
        raise ValueError(f"{architecture}.context_length is {context:,}; the file is damaged")
    table = header.tensors.get("token_embd.weight")
    if table is None:
        raise ValueError("its tensors have no token_embd.weight; take another copy")
    size = head_size(header, architecture) or hidden // heads
    queries, keys = heads * size, setting("attention.head_count_kv", heads) * size
    wide, rows = setting("feed_forward_length"), setting("vocab_size", table.shape[0])
    wanted: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, hidden), "output_norm.weight": (hidden,)}
    if "output.weight" in header.tensors:
        wanted["output.weight"] = (rows, hidden)
    of_layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "attn_q.weight": (queries, hidden),
        "attn_k.weight": (keys, hidden),
        "attn_v.weight": (keys, hidden),
        "attn_output.weight": (hidden, queries),
        "ffn_norm.weight": (hidden,),
        "ffn_gate.weight": (wide, hidden),
        "ffn_up.weight": (wide, hidden),
        "ffn_down.weight": (hidden, wide),
    }
    if architecture == "qwen2":
        of_layer |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    if architecture == "qwen3":
        of_layer |= {"attn_q_norm.weight": (size,), "attn_k_norm.weight": (size,)}
    for layer in range(layers):
        wanted |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    for name in sorted({*wanted, *header.tensors}):
        if name not in header.tensors:
            raise ValueError(f"its tensors lack {name}, of {architecture} with {layers:,} layers; take another copy")
        if name not in wanted:
            raise ValueError(f"its tensor {name} is none of {architecture} with {layers:,} layers; {_ORIGINAL}")
        if header.tensors[name].shape != wanted[name]:
            raise ValueError(
                f"its tensor {name} has shape {[*header.tensors[name].shape]}, and its settings say {[*wanted[name]]}; "
                "take another copy"
            )


def _check_tokenizer(header: Header) -> None:
    kind, split = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise ValueError(
            f"its tokenizer is {kind!r}; a byte-level BPE ('gpt2': Llama 3, Qwen, SmolLM) is needed, since the bytes "
            "of other tokens are not known; take another model"
        )
    tokens = header.texts("tokenizer.ggml.tokens")
    rows = header.tensors["token_embd.weight"].shape[0]
    if not tokens or len(tokens) > rows or len(set(tokens)) != len(tokens):
        raise ValueError(
            f"its tokenizer lists {len(tokens):,} tokens, or some of them twice, for {rows:,} rows of weights; take "
            "another copy"
        )
    for name in ("bos", "eos", "unknown", "padding"):
        key = f"tokenizer.ggml.{name}_token_id"
        token = header.settings.get(key)
        if token is None and name != "eos":
            continue
        if type(token) is not int or not 0 <= token < len(tokens):
            raise ValueError(f"{key} is {token!r}; must be a token id below {len(tokens):,}; take another copy")
    # Imported here: it takes seconds.
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if split not in (*_GPT2_SPLITS, *DIGIT_SPLITS, *GGUF_PRE_TOKENIZER_SPLITS):
        raise ValueError(
            f"its tokenizer splits text by the rule {split!r} (tokenizer.ggml.pre), which is not known here: its ids "
            "would be others than the model's; take the model in Hugging Face's form"
        )
