"""Counts the bytes that tensors occupy while a model runs."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that live, each once, and their peak while this mode is on.

    Args:
        existing: tensors that are allocated already.
    """

    def __init__(self, existing: Iterable[Tensor]):
        super().__init__()
        self._live: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in existing:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._add(value)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._live.pop(key)


@contextlib.contextmanager
def saved_bytes(besides: Iterable[Tensor] = ()) -> Iterator[list[int]]:
    """A list that holds, at the end, the bytes of what autograd saved for backward, each storage once.

    Args:
        besides: tensors that do not count: weights, and what all layers share.
    """
    ignored = {tensor.untyped_storage()._cdata for tensor in besides}
    kept: dict[int, Tensor] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in ignored and key not in kept:
            kept[key] = tensor  # so that no later storage gets the same address
            total[0] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
