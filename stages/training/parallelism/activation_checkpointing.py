"""Activation checkpointing (Chen et al. 2016), put on a model's layers from outside it.

Only the layers' `forward` is exchanged, so that modules, parameters and state dicts keep their names and FSDP's hooks,
which gather a layer's weights before its backward pass, run around what is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.decoder import Decoder
from models.memory import Checkpointing


def checkpoint_layers(model: Decoder, mode: Checkpointing) -> None:
    """Makes every layer keep less for its backward pass, and recompute the rest there.

    Args:
        mode: `selective` keeps the results of matrix products and of attention, nearly all of the work; `full` keeps
            nothing but the layer's input and costs a second forward pass; `none` leaves the model as it is.
    """
    if mode == "none":
        return
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    # Nothing in a layer draws random numbers.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _costly())
    for layer in model.model.layers:
        layer.forward = partial(_checkpointed, layer.forward, partial(checkpoint, **options))


def _checkpointed(
    forward: Callable[..., Any], checkpoint: Callable[..., Any], x: Tensor, change: Tensor | None, *rest: Any
) -> Any:
    """A layer whose input is one tensor: the residual stream and what is to be added to it would both be kept."""
    return checkpoint(forward, x if change is None else x + change, None, *rest)


def _costly() -> list[Any]:
    """The operations whose results are kept. Batched products are not: only attention by products has them, and its
    scores are T times as wide as what comes of them."""
    from torch.nn.attention import varlen  # noqa: F401 - registers its operation

    aten = torch.ops.aten
    return [
        aten.mm.default,
        torch.ops.mkldnn._linear_pointwise.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.torch_attn._varlen_attn.default,
    ]
