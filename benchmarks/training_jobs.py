"""What `training.py` measures, each in a process of its own: training steps of our loop, of stock transformers and of
a plain PyTorch model.

All learn the same tokens: rows in which every other token follows from the one before, so that the loss falls within
a few steps and number formats can be distinguished by it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from child import Work, serve

LEARNING_RATE = 1e-3
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
OPTIMIZER = {"name": "adamw", "betas": BETAS, "weight_decay": WEIGHT_DECAY, "grad_clip": CLIP, "z_loss": 1e-5}
SCHEDULE = {"kind": "wsd", "warmup_steps": 0, "decay_ratio": 0.0, "min_lr_ratio": 0.0}
"""What an update needs of `OptimizerConfig` and `ScheduleConfig`, which need pydantic: it may not be installed."""
VOCABULARY = {"cpu": 16_384, "cuda": 32_000}


def batches(batch: int, length: int, vocabulary: int) -> Iterator[np.ndarray]:
    """Endless rows [batch, length + 1] of tokens."""
    random = np.random.default_rng(0)
    follows = random.permutation(vocabulary)
    common = np.minimum(random.zipf(1.3, 1 << 20) - 1, vocabulary - 1)
    while True:
        rows = common[random.integers(0, len(common), (batch, length + 1))]
        rows[:, 1::2] = follows[rows[:, 0:-1:2]]
        yield rows.astype(np.int64)


def ours(
    size: str,
    precision: str,
    batch: int,
    length: int,
    threads: int,
    device: str = "cpu",
    micro_batch: int = 0,
    rank: int = 0,
    world: int = 1,
    port: int = 0,
) -> Work:
    """Our loop's update of one process's part, alone or sharded over several."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from models import matmul
    from models.decoder import Decoder
    from stages.training.loop.updater import Updater
    from stages.training.metrics.phase_clock import PhaseClock
    from stages.training.optim.optimizers import build_optimizers
    from stages.training.optim.schedule import LearningRateSchedule
    from stages.training.parallelism.ranks import init_distributed, parallelize
    from stages.training.runtime.compiling import compile_layers, wants_compiler
    from stages.training.runtime.precision import FORMATS

    torch.set_num_threads(threads)
    dtype = FORMATS[precision]
    config, schedule = SimpleNamespace(**OPTIMIZER), LearningRateSchedule(SimpleNamespace(**SCHEDULE), LEARNING_RATE, 1)
    ranks, of = init_distributed(device), shape(size, length, device)
    matmul.set_backend(matmul.faster_backend(ranks.device, dtype))
    with torch.device("meta"):
        model = Decoder(of, -1, dtype)  # no token ends a document: plain causal attention
    model = parallelize(model, ranks, 0)
    if wants_compiler("auto", ranks.device):
        compile_layers(model)
    clock, rows = PhaseClock(ranks.device), -(-batch // world)
    optimizers = build_optimizers(model, config, schedule, dtype)
    updater = Updater(model, optimizers, config, ranks, clock, rows)
    tokens = batches(batch, length, of.vocabulary_size)

    def step() -> dict[str, Any]:
        part = torch.from_numpy(next(tokens)[rank * rows : (rank + 1) * rows])
        given = SimpleNamespace(tokens=part[:, :-1].contiguous(), targets=part[:, 1:].contiguous())
        began = time.perf_counter()
        computed = updater.compute(given, batch * length, micro_batch or rows)
        updater.apply(0)
        loss = ranks.all_reduce_sum([float(computed.nats)])[0] / (batch * length)  # waits for the device
        return {"seconds": time.perf_counter() - began, "loss": loss, "phases": clock.seconds(clock.cut())}

    step()
    return step


def shape(size: str, length: int, device: str) -> Any:
    """Our config of a size, with the vocabulary that it is measured with."""
    from models.sizes import config_for_size

    return config_for_size(size, VOCABULARY[device], length)


def transformers(**options: Any) -> Work:
    """Stock Qwen3ForCausalLM; options as `_rival`'s."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def build(of: Any, length: int) -> Any:
        config = Qwen3Config(
            vocab_size=of.vocabulary_size,
            hidden_size=of.hidden_size,
            num_hidden_layers=of.layers,
            num_attention_heads=of.heads,
            num_key_value_heads=of.key_value_heads,
            head_dim=of.head_size,
            intermediate_size=of.intermediate_size,
            tie_word_embeddings=of.tied,
            max_position_embeddings=length,
            use_cache=False,
            attn_implementation="sdpa",
        )
        return Qwen3ForCausalLM(config)

    def loss(forward: Any, inputs: Any, targets: Any) -> Any:
        # Shifted here, so that all T inputs are learned from and not T - 1.
        return forward(input_ids=inputs, labels=targets, shift_labels=targets).loss

    return _rival(build, loss, **options)


def plain(**options: Any) -> Work:
    """The same model by PyTorch's own parts and nothing of ours; options as `_rival`'s."""
    from plain_model import PlainModel

    return _rival(PlainModel, lambda forward, inputs, targets: forward(inputs, targets), **options)


def _rival(
    build: Callable[[Any, int], Any],
    loss: Callable[[Any, Any, Any], Any],
    size: str,
    precision: str,
    compiled: bool,
    batch: int,
    length: int,
    threads: int,
    device: str = "cpu",
    micro_batch: int = 0,
) -> Work:
    """A rival's update: mean loss, its gradients clipped, fused AdamW.

    Args:
        build: a model of a shape and a length.
        loss: the mean loss by the model or its compiled form, of inputs and targets [n, T].
        precision: fp32; autocast (fp32 weights, bf16 products); bf16 (weights too).
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    of = shape(size, length, device)
    model = build(of, length).to(device, torch.bfloat16 if precision == "bf16" else torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    forward = torch.compile(model) if compiled else model
    tokens = batches(batch, length, of.vocabulary_size)

    def step() -> dict[str, Any]:
        rows = torch.from_numpy(next(tokens))
        began = time.perf_counter()
        total = 0.0
        for part in rows.split(micro_batch or batch):
            part = part.to(device)
            with torch.autocast(device, torch.bfloat16, enabled=precision == "autocast"):
                mean = loss(forward, part[:, :-1], part[:, 1:].contiguous())
            (mean * len(part) / batch).backward()
            total += mean.detach() * len(part) / batch
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": float(total), "seconds": time.perf_counter() - began}

    step()
    return step


def rate(precision: str, size: int = 2048) -> Work:
    """The rate of a size^3 product, operations a second: the fastest of three."""
    import torch

    from stages.training.runtime.precision import FORMATS, matmul_flops_per_second

    def work() -> dict[str, Any]:
        return {"rate": matmul_flops_per_second(FORMATS[precision], torch.device("cpu"), size)}

    return work


def products_alone(size: str, precision: str, batch: int, length: int, threads: int) -> Work:
    """Every product of a step by itself, as our code computes it: seconds by kind."""
    import torch

    from models import matmul
    from models.attention_cpu import block_count
    from stages.training.runtime.precision import FORMATS

    torch.set_num_threads(threads)
    dtype, of, rows = FORMATS[precision], shape(size, length, "cpu"), batch * length
    matmul.set_backend(matmul.faster_backend(torch.device("cpu"), dtype))
    width, heads = of.hidden_size, (of.heads + 2 * of.key_value_heads) * of.head_size
    matrices = {
        "queries, keys, values": (width, heads, of.layers),
        "attention's output": (of.heads * of.head_size, width, of.layers),
        "gate and up": (width, 2 * of.intermediate_size, of.layers),
        "down": (of.intermediate_size, width, of.layers),
    }

    def work() -> dict[str, Any]:
        found: dict[str, float] = {}
        for name, (inputs, outputs, times) in matrices.items():
            x = torch.randn(rows, inputs, dtype=dtype, requires_grad=True)
            weight = torch.randn(outputs, inputs, dtype=dtype, requires_grad=True)
            grad = torch.randn(rows, outputs, dtype=dtype)
            found[name] = times * _seconds(lambda x=x, w=weight, g=grad: matmul.linear(x, w).backward(g))
        hidden, weight = torch.randn(1024, width, dtype=dtype), torch.randn(of.vocabulary_size, width, dtype=dtype)
        grad = torch.randn(1024, of.vocabulary_size, dtype=dtype)
        total = matmul.WeightGradAccumulator(weight)

        def head() -> None:
            matmul.times_transposed(hidden, weight)
            matmul.times_transposed(grad, weight.T)
            total.add(grad, hidden)

        found["head"] = rows / 1024 * _seconds(head)
        pairs, block = batch * of.key_value_heads, length // block_count(length)
        q = torch.randn(pairs, of.heads // of.key_value_heads * block, of.head_size, dtype=dtype)
        k = torch.randn(pairs, length, of.head_size, dtype=dtype)

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
    serve({"ours": ours, "transformers": transformers, "plain": plain, "rate": rate, "products": products_alone})
