"""Ranks, and the sharding of a model over them (FSDP2), applied from outside the model.

One process alone has neither a process group nor FSDP; everything below then does nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.decoder import Decoder
from models.initialize import initial_value
from stages.training.runtime.process import BACKEND, TIMEOUT_SECONDS


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world: int
    local_world: int
    device: torch.device
    saving: Any = None
    """A process group of its own for what ranks say to each other about checkpoints, on the host."""
    copying: Any = None
    """Another one for the threads that copy checkpoints to the next machine, beside everything else."""

    @property
    def alone(self) -> bool:
        return self.world == 1

    def all_reduce_sum(self, values: list[float]) -> list[float]:
        """Sums of host values over all ranks."""
        if self.alone:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def broadcast_json(self, value: Any) -> Any:
        """Rank 0's value (plain JSON), on every rank."""
        if self.alone:
            return value
        content = _encode(value) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(content)])
        dist.broadcast(size, src=0)
        if self.rank:
            content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return _decode(content)

    def all_gather_json(self, value: Any) -> list[Any]:
        """Every rank's value (plain JSON), in rank order, on every rank."""
        if self.alone:
            return [value]
        content = _encode(value)
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(content)]), group=self.saving)
        most = int(max(sizes))
        padded = torch.zeros(most, dtype=torch.uint8)
        padded[: len(content)] = content
        gathered = [torch.empty(most, dtype=torch.uint8) for _ in range(self.world)]
        dist.all_gather(gathered, padded, group=self.saving)
        return [_decode(found[: int(size)]) for found, size in zip(gathered, sizes, strict=True)]

    def first_message(self, message: str) -> str:
        """Of the messages of all ranks, empty or not, the first that is not: all ranks then decide alike."""
        return next((found for found in self.all_gather_json(message) if found), "")


def _encode(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _decode(content: Tensor) -> Any:
    return json.loads(content.numpy().tobytes())


def init_distributed(device: str) -> Ranks:
    """Finds the other ranks, from torchrun's or Ray Train's environment; creates the process group if there is none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    index = int(os.environ.get("LOCAL_RANK", "0"))
    # Ray shows each worker its own GPU only, torchrun shows all of them.
    where = torch.device(kind, min(index, torch.cuda.device_count() - 1)) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(where)
    if world == 1:
        return Ranks(0, 1, 1, where)
    if not dist.is_initialized():
        dist.init_process_group(BACKEND if kind == "cuda" else "gloo", timeout=timedelta(seconds=TIMEOUT_SECONDS))
    return Ranks(dist.get_rank(), world, local, where, dist.new_group(backend="gloo"), dist.new_group(backend="gloo"))


def parallelize(model: Decoder, ranks: Ranks, seed: int | None, replicas: int = 1) -> Decoder:
    """Puts a model that was built on the meta device on its device, sharded if there are several ranks, and sets its
    initial values, which depend on the seed and not on the ranks.

    Args:
        seed: None: the memory is left as it is, for a checkpoint or a base to fill.
        replicas: copies of the model, each sharded over world / replicas neighbouring ranks.
    """
    if not ranks.alone:
        shard(model, ranks, replicas, gathered=ranks.device.type == "cpu")
    if seed is None:
        model.to_empty(device=ranks.device)
    else:
        set_values(model, ranks, seed)
    return model


def set_values(model: Decoder, ranks: Ranks, seed: int) -> None:
    """Gives the parameters of a model on the meta device, whole or sharded, their memory and their initial values."""
    values = ((name, initial_value(name, p.shape, seed).to(ranks.device)) for name, p in model.named_parameters())
    if ranks.alone:
        model.load_state_dict(dict(values), assign=True)
        return
    model.to_empty(device=ranks.device)
    parameters = dict(model.named_parameters())
    for name, whole in values:
        fill_shard(parameters[name], whole)


def shard(model: Decoder, ranks: Ranks, replicas: int, gathered: bool) -> None:
    """Shards a model on the meta device over the ranks (FSDP2), or `replicas` copies of it over a part each (HSDP).

    A layer is a unit of FSDP; embedding, last norm and head stand in the root's, so that the loss, which the root's
    forward computes, sees a tied head whole. Gradients are summed over ranks, not averaged: the loss is already
    divided by the global number of targets.

    Args:
        gathered: the model is one unit that stays gathered between forward and backward: for the host, where memory
            is no concern and each collective costs.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if replicas == 1:
        mesh = init_device_mesh(ranks.device.type, (ranks.world,), mesh_dim_names=("shard",))
    else:  # neighbours, which share a machine, share a copy
        sizes = (replicas, ranks.world // replicas)
        mesh = init_device_mesh(ranks.device.type, sizes, mesh_dim_names=("replicate", "shard"))
    # Inputs are not cast: activations have the model's format already, and a layer's rotation is fp32 on purpose.
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    units: list[nn.Module] = [] if gathered else list(model.model.layers)
    for unit in [*units, model]:
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=not gathered)
        # Gloo knows sums only; a factor of its own without this would need a scaled one.
        unit.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]
        unit.set_gradient_divide_factor(1.0)  # type: ignore[operator]


@torch.no_grad()
def fill_shard(parameter: Tensor, whole: Tensor) -> None:
    """Fills a parameter, which may be sharded, from a tensor that every rank has whole: nothing is sent."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(whole)


def set_last_micro_batch(model: Decoder, last: bool) -> None:
    """Says whether the next backward pass is the last of its batch.

    A model that is one unit sums its gradients over ranks then, and only then. With a unit a layer, whole gradients
    would be as big as the whole model: they are summed within each copy, and kept in shards, after every micro-batch,
    and over the copies after the last one.
    """
    if hasattr(model.model.layers[0], "set_requires_all_reduce"):
        model.set_requires_all_reduce(last)  # type: ignore[operator]
    elif hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)


def reshard(model: nn.Module) -> None:
    """Gives gathered parameters back after forward passes that no backward pass followed, which would have done it.

    Until then the model's parameters are the gathered ones, in the number format of the products.
    """
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()


def destroy_process_group() -> None:
    """Ends the process group if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
