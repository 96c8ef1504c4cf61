"""Memory of training on one rank, estimated from the shape alone, before anything is allocated.

With N = micro_batch x sequence_length tokens per forward pass, S shards, `a` bytes per activation and P parameters:

| part | bytes |
|---|---|
| weights | 4 P / S, fp32 master weights |
| gradients | 4 P / S |
| optimizer state | 8 P / S: AdamW's two averages, or Muon's momentum and updates |
| gathered | weights in the format of the products, and gradients before their reduction (below) |
| activations | N a x what each layer saves for its backward pass (below), and the temporaries of one layer |
| loss | a chunk's logits, V rows of gradient, the last norm |

Per token a layer of width d, with H query heads and K key heads of size D and a feed-forward width I, saves
4 d + 2 (H + K) D + 4 I numbers, and (H + K) D more where queries and keys are normed:

- inputs of products: d (queries, keys, values), H D (output), d (gate and up), I (down);
- inputs of norms: 2 d, and those of queries and keys;
- attention: rotated queries and keys, and values, (H + 2 K) D; its result is the output product's input;
- SwiGLU: gate, its SiLU, and up, 3 I.

On a CPU heads are saved both as projected and as rotated, values too, and attention weights of sequences up to
`attention_cpu.MAX_SAVED_LENGTH`, H numbers for each key that a token attends to; SwiGLU saves gate and up only.

`selective` checkpointing saves the layer's input and the results of its products and of attention, 3 d + 2 (H + K) D
+ 2 I; `full` saves the input, d. Both need what one layer saves without checkpointing while they recompute it.

With LoRA only the adapters are fp32 and have gradients and optimizer state, the head has no gradient, and each adapter
saves `rank` numbers a token more.

Compared with PyTorch's allocations on a CPU in `tests/models/test_memory.py`; not compared on a GPU, where
fragmentation, the CUDA context and NCCL's buffers are additional: `models/presets.py` reserves memory for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.attention_cpu import MAX_SAVED_LENGTH, block_count
from models.lora import Lora, layer_adapter_parameters
from models.loss import ROWS
from models.sizes import ModelConfig, layer_parameters, parameters

Checkpointing = Literal["none", "selective", "full"]
"""What the backward pass recomputes: nothing, everything except products and attention, or whole layers."""

FP32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, by part."""

    weights: int
    gradients: int
    optimizer_state: int
    gathered: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer_state + self.gathered + self.activations + self.loss


def training_memory(
    config: ModelConfig,
    *,
    micro_batch: int,
    sequence_length: int,
    shards: int,
    checkpointing: Checkpointing,
    bytes_per_activation: int,
    host: bool = False,
    lora: Lora | None = None,
) -> Memory:
    """Peak bytes of one rank in a step.

    Args:
        micro_batch: sequences per forward pass.
        sequence_length: tokens per sequence.
        shards: ranks that a replica of the model is sharded over; 1: a single rank without FSDP.
        bytes_per_activation: of the number format of the products, 2 or 4.
        host: on a CPU. There the model is one FSDP unit that stays gathered, and attention saves its weights.
        lora: the adapters that are trained; None: all weights are.
    """
    tokens, a = micro_batch * sequence_length, bytes_per_activation
    adapters = config.layers * layer_adapter_parameters(config, lora) if lora else 0
    frozen = parameters(config) if lora else 0
    trained = -(-FP32 * (adapters if lora else parameters(config)) // shards)
    adapter_values = lora.rank * len(lora.target_modules) * a if lora else 0
    saved, most = (
        _saved_per_token(config, mode, a, sequence_length if host else 0) for mode in (checkpointing, "none")
    )
    working = (3 * config.intermediate_size + 2 * config.hidden_size) * a
    if checkpointing != "full":
        saved += adapter_values
    if checkpointing != "none":
        working += most + adapter_values
    head = 0 if lora else config.vocabulary_size * config.hidden_size
    chunk = min(ROWS, tokens) * config.vocabulary_size * (2 * a + FP32)
    return Memory(
        weights=-(-a * frozen // shards) + trained,
        gradients=trained,
        optimizer_state=2 * trained,
        gathered=_gathered(config, shards, checkpointing, a, host, adapters if lora else None),
        activations=tokens * (config.layers * saved + working),
        loss=chunk + head * (FP32 + 2 * a) + tokens * config.hidden_size * 3 * a,
    )


def _saved_per_token(config: ModelConfig, checkpointing: Checkpointing, a: int, host_length: int) -> int:
    """Bytes per token that a layer saves for its backward pass; `host_length` is that of sequences on a CPU, else 0."""
    size, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    softmax = FP32 * config.heads  # log-sum-exp of attention
    if checkpointing == "full":
        return size * a
    if checkpointing == "selective":
        return (3 * size + 2 * (queries + keys) + 2 * wide) * a + softmax
    if host_length:
        seen = (host_length + host_length // block_count(host_length)) // 2 if host_length <= MAX_SAVED_LENGTH else 0
        return (4 * size + 3 * queries + 4 * keys + 3 * wide + config.heads * seen) * a + 2 * FP32
    normed = queries + keys if config.qk_norm else 0
    return (4 * size + 2 * (queries + keys) + 4 * wide + normed) * a + softmax


def _gathered(
    config: ModelConfig, shards: int, checkpointing: Checkpointing, a: int, host: bool, adapters: int | None
) -> int:
    """Bytes of weights in the format of the products, and of gradients before their reduction.

    A single rank holds a cast copy of every matrix until its backward pass, or of one layer's under checkpointing; of
    weights that stay as they are there is no copy.
    On a GPU the root unit (embedding, head) is always gathered, and two layers at once: the current and the next one;
    their gradients take the format of the products, and fp32 for the reduction.

    Args:
        adapters: parameters of all adapters where they alone have gradients; None: all weights have.
    """
    each = (adapters or 0) // config.layers
    layer = layer_parameters(config) + each
    root = parameters(config) - config.layers * layer_parameters(config)
    whole = root + config.layers * layer
    if shards == 1:
        if adapters is not None:
            cast = a * adapters if a != FP32 else 0
            return cast + (a * config.layers * _concatenated(config) if host else 0)
        if a == FP32:
            return FP32 * config.layers * _concatenated(config) if host else 0
        return a * (whole if checkpointing == "none" else root + layer)
    layers = config.layers if host else min(2, config.layers)
    weights = root + layers * layer
    gradients = weights if adapters is None else layers * each
    return a * weights + (a + FP32) * gradients + (a * config.layers * _concatenated(config) if host else 0)


def _concatenated(config: ModelConfig) -> int:
    """Parameters of a layer that are concatenated for one product on a CPU: queries, keys, values; gate and up."""
    heads = config.heads + 2 * config.key_value_heads
    return config.hidden_size * (heads * config.head_size + 2 * config.intermediate_size)
