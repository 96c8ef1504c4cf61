"""Muon against torch's own on whole matrices, and sharded against whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from stages.training.optim.muon import Muon, orthogonalize
from tests.stages.training.ranks import on_ranks

SHAPES = [(24, 16), (16, 24), (24, 16), (5, 16), (16, 24), (24, 16), (1, 8)]


def _trained(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int = 4) -> list[nn.Parameter]:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return params


def _params() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(9)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_singular_values_become_about_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 40, 30), (2, 30, 40), (1, 1, 7)):
        found = torch.linalg.svdvals(orthogonalize(torch.randn(shape), torch.float32))
        assert found.min() > 0.6 and found.max() < 1.25
    assert orthogonalize(torch.zeros(1, 4, 4), torch.float32).abs().max() == 0


def test_whole_matrices_are_updated_as_torch_does() -> None:
    ours = _params()
    _trained(ours, Muon(ours, lr=0.02, weight_decay=0.1, momentum=0.9))
    theirs = _params()
    reference = torch.optim.Muon(theirs, 0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    _trained(theirs, reference)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=4e-3, rtol=0)  # bf16, in another order


def _update_shards(replicas: int, result: Path) -> None:
    """One rank's part in four updates."""
    world = dist.get_world_size()
    if replicas > 1:
        mesh, how = init_device_mesh("cpu", (replicas, world // replicas)), [Replicate(), Shard(0)]
    else:
        mesh, how = init_device_mesh("cpu", (world,)), [Shard(0)]
    params = [nn.Parameter(distribute_tensor(p.detach(), mesh, how)) for p in _params()]
    optimizer = Muon(params, lr=0.02, weight_decay=0.1, momentum=0.9, dtype=torch.float32)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = distribute_tensor(torch.randn(p.shape, generator=generator), mesh, how)
        optimizer.step()
    found = [p.full_tensor() for p in params]
    if dist.get_rank() == 0:
        torch.save(found, result)


@pytest.mark.parametrize(("ranks", "replicas"), [(3, 1), (4, 2)])
def test_shards_are_updated_as_the_whole_matrix(ranks: int, replicas: int, tmp_path: Path) -> None:
    result = tmp_path / "found.pt"
    on_ranks(ranks, tmp_path / "ranks", _update_shards, replicas, result)
    whole = _params()
    _trained(whole, Muon(whole, lr=0.02, weight_decay=0.1, momentum=0.9, dtype=torch.float32))
    for found, expected in zip(torch.load(result), whole, strict=True):
        torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=0)
