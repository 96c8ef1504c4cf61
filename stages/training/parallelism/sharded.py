"""Tensors that may be sharded over ranks."""

from __future__ import annotations

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered (every rank must call it), any other as it is."""
    full = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor
