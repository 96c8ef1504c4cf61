"""What `training.py` measures, each in a process of its own: training steps of our loop and of stock transformers.

Both learn the same tokens: rows in which every other token follows from the one before, so that the loss falls within
a few steps and number formats can be told apart by it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from child import Work, serve

VOCABULARY = 16_384
LEARNING_RATE = 1e-3
Z_LOSS = 1e-5


class Size(NamedTuple):
    """Qwen3's shape, tied."""

    hidden: int
    layers: int
    heads: int
    keys: int
    head: int
    feed_forward: int


SIZES = {"11m": Size(256, 9, 4, 2, 64, 704), "30m": Size(512, 7, 8, 4, 64, 1408)}


def batches(batch: int, length: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Endless rows [batch, length + 1] of tokens."""
    random = np.random.default_rng(seed)
    follows = random.permutation(VOCABULARY)
    common = np.minimum(random.zipf(1.3, 1 << 20) - 1, VOCABULARY - 1)
    while True:
        rows = common[random.integers(0, len(common), (batch, length + 1))]
        rows[:, 1::2] = follows[rows[:, 0:-1:2]]
        yield rows.astype(np.int64)


def ours(
    size: str, precision: str, batch: int, length: int, threads: int, rank: int = 0, world: int = 1, port: int = 0
) -> Work:
    """Our loop's update of one process's part, alone or sharded over several."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from models import products
    from models.decoder import Decoder
    from stages.training.config import TrainingConfig
    from stages.training.data import Batch
    from stages.training.optimizer import build_optimizer
    from stages.training.parallel import join, place
    from stages.training.phases import PhaseClock
    from stages.training.precision import FORMATS
    from stages.training.step import Updater

    torch.set_num_threads(threads)
    dtype = FORMATS[precision]
    if dtype == torch.float32:
        products.use(products.faster_products())
    config = TrainingConfig(size=size, batch=batch, z_loss=Z_LOSS)
    ranks = join("cpu")
    with torch.device("meta"):
        model = Decoder(shape(size, length), -1, dtype)  # no token ends a document: plain causal attention
    model = place(model, ranks, 0)
    clock = PhaseClock(ranks.device)
    rows = -(-batch // world)
    updater = Updater(model, build_optimizer(model, config, LEARNING_RATE, dtype), config, ranks, clock, rows)
    tokens = batches(batch, length)

    def step() -> dict[str, Any]:
        part = torch.from_numpy(next(tokens)[rank * rows : (rank + 1) * rows])
        began = time.perf_counter()
        computed = updater.compute(Batch(part[:, :-1].contiguous(), part[:, 1:].contiguous()), batch * length, rows)
        updater.apply(LEARNING_RATE)
        loss = ranks.sum([float(computed.nats)])[0] / (batch * length)
        return {"seconds": time.perf_counter() - began, "loss": loss, "phases": clock.seconds(clock.cut())}

    step()
    return step


def shape(size: str, length: int) -> Any:
    """Our config of a size."""
    from models.sizes import ModelConfig

    of = SIZES[size]
    return ModelConfig(VOCABULARY, *of, tied=True, context=length)


def transformers(size: str, precision: str, compiled: bool, batch: int, length: int, threads: int) -> Work:
    """Stock Qwen3ForCausalLM. precision: fp32; autocast (fp32 weights, bf16 products); bf16 (weights too)."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    of = SIZES[size]
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=of.hidden,
        num_hidden_layers=of.layers,
        num_attention_heads=of.heads,
        num_key_value_heads=of.keys,
        head_dim=of.head,
        intermediate_size=of.feed_forward,
        tie_word_embeddings=True,
        max_position_embeddings=length,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = Qwen3ForCausalLM(config).to(torch.bfloat16 if precision == "bf16" else torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if compiled else model
    tokens = batches(batch, length)

    def step() -> dict[str, Any]:
        # Labels are shifted inside, so that of T inputs T - 1 are learned: one more token makes it T.
        rows = torch.from_numpy(next(tokens))
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            loss = forward(input_ids=rows[:, :-1], labels=rows[:, 1:], shift_labels=rows[:, 1:].contiguous()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"seconds": time.perf_counter() - began, "loss": float(loss.detach())}

    step()
    return step


def rate(precision: str, size: int = 2048) -> Work:
    """The rate of a size^3 product, operations a second: the fastest of three."""
    import torch

    from stages.training.precision import FORMATS, product_rate

    def work() -> dict[str, Any]:
        return {"rate": product_rate(FORMATS[precision], torch.device("cpu"), size)}

    return work


def products_alone(size: str, precision: str, batch: int, length: int, threads: int) -> Work:
    """Every product of a step by itself, as our code makes it: seconds by kind."""
    import torch

    from models import products
    from models.attention_cpu import blocks
    from stages.training.precision import FORMATS

    torch.set_num_threads(threads)
    dtype, of, rows = FORMATS[precision], SIZES[size], batch * length
    if dtype == torch.float32:
        products.use(products.faster_products())
    heads = (of.heads + 2 * of.keys) * of.head
    matrices = {
        "queries, keys, values": (of.hidden, heads, of.layers),
        "attention's output": (of.heads * of.head, of.hidden, of.layers),
        "gate and up": (of.hidden, 2 * of.feed_forward, of.layers),
        "down": (of.feed_forward, of.hidden, of.layers),
    }

    def work() -> dict[str, Any]:
        found: dict[str, float] = {}
        for name, (inputs, outputs, times) in matrices.items():
            x = torch.randn(rows, inputs, dtype=dtype, requires_grad=True)
            weight = torch.randn(outputs, inputs, dtype=dtype, requires_grad=True)
            grad = torch.randn(rows, outputs, dtype=dtype)
            found[name] = times * _seconds(lambda x=x, w=weight, g=grad: products.linear(x, w).backward(g))
        hidden, weight = torch.randn(1024, of.hidden, dtype=dtype), torch.randn(VOCABULARY, of.hidden, dtype=dtype)
        grad = torch.randn(1024, VOCABULARY, dtype=dtype)
        total = products.OuterSum(weight)

        def head() -> None:
            products.times_transposed(hidden, weight)
            products.times_transposed(grad, weight.T)
            total.add(grad, hidden)

        found["head"] = rows / 1024 * _seconds(head)
        pairs, group, block = batch * of.keys, of.heads // of.keys, length // blocks(length)
        q, k = torch.randn(pairs, group * block, of.head, dtype=dtype), torch.randn(pairs, length, of.head, dtype=dtype)

        def attention() -> None:
            for end in range(block, length + 1, block):
                p = torch.bmm(q, k[:, :end].mT)
                torch.bmm(p, k[:, :end])  # mixed values
                torch.bmm(p.mT, q)  # of values
                torch.bmm(q, k[:, :end].mT)  # of weights
                torch.bmm(p, k[:, :end])  # of queries
                torch.bmm(p.mT, q)  # of keys

        found["attention"] = of.layers * _seconds(attention)
        return {"by_kind": found}

    work()
    return work


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve({"ours": ours, "transformers": transformers, "rate": rate, "products": products_alone})
