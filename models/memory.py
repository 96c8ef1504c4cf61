"""Memory that training takes on one rank, estimated from the shape alone: before anything is allocated.

With N = micro_batch x sequence_length tokens a forward pass, S shards, `a` bytes an activation and P parameters:

| part | bytes |
|---|---|
| weights | 4 P / S, fp32 master weights |
| gradients | 4 P / S |
| averages | 8 P / S, AdamW's two; Muon's one and the updates |
| gathered | weights in the products' format, and gradients that are not reduced yet (below) |
| activations | N a x what each layer keeps for its backward pass (below), and the temporaries of one layer |
| loss | a chunk's logits, V rows of gradient, the last norm |

Per token a layer of width d, with H query heads and K key heads of D and a feed-forward layer of I, keeps
4 d + 2 (H + K) D + 4 I numbers, and (H + K) D more where queries and keys are normed:

- inputs of products: d (queries, keys, values), H D (output), d (gate and up), I (down);
- inputs of norms: 2 d, and those of queries and keys;
- attention: turned queries and keys, and values, (H + 2 K) D; its result is the output product's input;
- SwiGLU: gate, its SiLU, and up, 3 I.

On a CPU heads are kept as they were projected and as they were turned, values too, and attention's weights of sequences
up to `attention_cpu.KEPT`, H numbers for each key that a token sees; SwiGLU keeps gate and up only.

`selective` checkpointing keeps the layer's input and the results of its products and of attention, 3 d + 2 (H + K) D
+ 2 I; `full` keeps the input, d. Both need what one layer keeps without checkpointing while they compute it again.

Held against what PyTorch allocates on a CPU: `tests/models/test_memory.py`. On a GPU it was not; the allocator's
fragments, the CUDA context and NCCL's buffers come on top, for which `models/presets.py` leaves room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.attention_cpu import KEPT, blocks
from models.loss import ROWS
from models.sizes import ModelConfig, layer_parameters, parameters

Checkpointing = Literal["none", "selective", "full"]
"""What is computed again in the backward pass: nothing, all but products and attention, or whole layers."""

FP32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, by part."""

    weights: int
    gradients: int
    averages: int
    gathered: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.averages + self.gathered + self.activations + self.loss


def training_memory(
    config: ModelConfig,
    *,
    micro_batch: int,
    sequence_length: int,
    shards: int,
    checkpointing: Checkpointing,
    bytes_per_activation: int,
    host: bool = False,
) -> Memory:
    """Bytes that one rank needs at the peak of a step.

    Args:
        micro_batch: sequences a forward pass.
        sequence_length: tokens a sequence.
        shards: ranks that a copy of the model is sharded over; 1 is one rank alone, without FSDP.
        bytes_per_activation: of the number format of the products, 2 or 4.
        host: on a CPU. There a model is one unit of FSDP that stays gathered, and attention keeps its weights.
    """
    tokens, a = micro_batch * sequence_length, bytes_per_activation
    whole = parameters(config)
    sharded = -(-FP32 * whole // shards)
    kept, most = (_kept(config, how, a, sequence_length if host else 0) for how in (checkpointing, "none"))
    working = (3 * config.intermediate_size + 2 * config.hidden_size) * a
    if checkpointing != "none":
        working += most
    head = config.vocabulary_size * config.hidden_size
    chunk = min(ROWS, tokens) * config.vocabulary_size * (2 * a + FP32)
    return Memory(
        weights=sharded,
        gradients=sharded,
        averages=2 * sharded,
        gathered=_gathered(config, shards, checkpointing, a, host),
        activations=tokens * (config.layers * kept + working),
        loss=chunk + head * (FP32 + 2 * a) + tokens * config.hidden_size * 3 * a,
    )


def _kept(config: ModelConfig, checkpointing: Checkpointing, a: int, host_length: int) -> int:
    """Bytes per token that a layer keeps for its backward pass; `host_length` is that of sequences on a CPU, else 0."""
    size, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    softmax = FP32 * config.heads  # log of attention's denominators
    if checkpointing == "full":
        return size * a
    if checkpointing == "selective":
        return (3 * size + 2 * (queries + keys) + 2 * wide) * a + softmax
    if host_length:
        seen = (host_length + host_length // blocks(host_length)) // 2 if host_length <= KEPT else 0
        return (4 * size + 3 * queries + 4 * keys + 3 * wide + config.heads * seen) * a + 2 * FP32
    normed = queries + keys if config.qk_norm else 0
    return (4 * size + 2 * (queries + keys) + 4 * wide + normed) * a + softmax


def _gathered(config: ModelConfig, shards: int, checkpointing: Checkpointing, a: int, host: bool) -> int:
    """Bytes of weights in the products' format and of gradients before their reduction.

    One rank alone keeps a cast copy of every matrix until its backward pass, or of one layer's under checkpointing.
    On a GPU the root unit (embedding, head) is gathered all the time and two layers at once, the one computed and the
    next; their gradients stand beside them once in the products' format and once in fp32, which is reduced.
    """
    whole, layer = parameters(config), layer_parameters(config)
    root = whole - config.layers * layer
    if shards == 1:
        if a == FP32:
            return FP32 * config.layers * _beside(config) if host else 0
        return a * (whole if checkpointing == "none" else root + layer)
    if host:
        return (2 * a + FP32) * whole + a * config.layers * _beside(config)
    return (2 * a + FP32) * (root + min(2, config.layers) * layer)


def _beside(config: ModelConfig) -> int:
    """Weights of a layer that are laid side by side for one product on a CPU: queries, keys, values; gate and up."""
    heads = config.heads + 2 * config.key_value_heads
    return config.hidden_size * (heads * config.head_size + 2 * config.intermediate_size)
