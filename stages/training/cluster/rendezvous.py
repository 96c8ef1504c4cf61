"""How the ranks of one machine find each other: by a file that only this user can read, not by a port.

The rendezvous of PyTorch that Ray Train sets up listens on every interface, and whoever reaches it can change what the
ranks tell each other. The group's own traffic stays on loopback; see `ray_cluster`.
"""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from ray.train import get_context
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig

from stages.training.runtime.process import TIMEOUT_SECONDS


class _NoRendezvous(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True  # as Ray's backend for PyTorch


class WithoutPort(TorchConfig):  # type: ignore[misc]
    """PyTorch on Ray Train whose workers join the process group by themselves, with `join_group`."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _NoRendezvous


def join_group(backend: str, folder: Path) -> None:
    """Makes a worker a rank of a process group; if it is alone, it only gets the variables that name its rank.

    Args:
        backend: PyTorch's backends: `gloo`, `cpu:gloo,cuda:nccl`.
        folder: private, on the workers' machine. Each start of the group has a file of its own in it.
    """
    context = get_context()
    rank, world, local = context.get_world_rank(), context.get_world_size(), context.get_local_rank()
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
    }
    if world == 1:
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(min(local, torch.cuda.device_count() - 1))
    name = broadcast_from_rank_zero(uuid.uuid4().hex if rank == 0 else None)
    store = dist.FileStore(str(folder / f"rendezvous-{name}"), world)
    timeout = timedelta(seconds=TIMEOUT_SECONDS)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
