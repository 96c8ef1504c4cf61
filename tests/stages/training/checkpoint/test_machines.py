"""Two machines, played by two ranks with a folder each for /dev/shm: one keeps the other's checkpoints in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.store import Store
from stages.training.checkpoint import exchange
from stages.training.checkpoint.format import INDEX, MANIFEST, STATE
from stages.training.checkpoint.machines import Machines
from stages.training.checkpoint.memory_tier import ROOT_VARIABLE, SLOTS, run_folder
from stages.training.parallelism.ranks import init_distributed
from stages.training.parallelism.sharded import whole
from tests.stages.training.checkpoint.small import FOLDER, Small, bits, flip, restored, values, written
from tests.stages.training.ranks import on_ranks
from tests.support import ObjectStore


def _shard(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut by rows as FSDP cuts; what has no rows is on every rank."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    if not torch.distributed.is_initialized():
        return tensors
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    return {name: distribute_tensor(t, mesh, [Shard(0)]) if t.ndim else t for name, t in tensors.items()}


def _join(base: Path, store: Store | None = None, **config: Any) -> Small:
    """This rank's part in the run; each rank is a machine."""
    memory = base / f"memory-{os.environ.get('RANK', '0')}"
    memory.mkdir(exist_ok=True)
    os.environ[ROOT_VARIABLE] = str(memory)
    store, ranks = store or Store(base / "store"), init_distributed("cpu")
    return Small(store, ranks, wrap=_shard, **({"memory_every_steps": 1} | config))


def _save(base: Path) -> None:
    """Step 1 on disk and in memory, step 2 in memory alone."""
    run = _join(base)
    assert run.restore() is None
    run.save(1)
    run.save(2, durable=False)
    run.leave()


def _assert_restored(base: Path, step: int, tier: str) -> None:
    run = _join(base)
    found = run.restore()
    assert found is not None and (found.step, found.candidate.tier) == (step, tier), run.refused
    assert found.state == {"step": step}
    assert bits({name: whole(tensor) for name, tensor in run.tensors.items()}) == bits(values(step))
    run.leave()


def _restore_and_save(base: Path, step: int, tier: str) -> None:
    """As `_assert_restored`; then the other machine has copies again."""
    _assert_restored(base, step, tier)
    run = _join(base)
    run.restore()
    run.save(step + 1, durable=False)
    run.leave()


def _write_on_disk(base: Path) -> None:
    run = _join(base, memory_every_steps=0)
    run.restore()
    run.save(1)
    run.leave()


def _in_a_bucket(base: Path, url: str, env: dict[str, str], restarts: bool) -> None:
    """The machines have a disk each, and an object store. The second restart is after the loss of a disk."""
    cache = base / f"cache-{os.environ['RANK']}"
    os.environ |= env | {"XDG_CACHE_HOME": str(cache)}
    for tier in ("disk", "store") if restarts else (None,):
        run = _join(base, Store(url), memory_every_steps=0)
        found = run.restore()
        assert (found.candidate.tier if found else None) == tier, run.refused
        if found is None:
            run.save(1)
        assert bits({name: whole(tensor) for name, tensor in run.tensors.items()}) == bits(values(1))
        run.leave()
        if run.checkpoints.ranks.rank == 1 and restarts:
            shutil.rmtree(cache, ignore_errors=True)


def _slot(base: Path, machine: int, step: int) -> Path:
    """The slot with a step in a machine's memory."""
    manifests = (base / f"memory-{machine}").glob(f"*/*/*/{MANIFEST}")
    return next(path.parent for path in manifests if json.loads(path.read_bytes())["step"] == step)


def _group(tmp_path: Path, function: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """A start of the run's processes."""
    number = len([*tmp_path.glob("ranks-*")])
    on_ranks(count, tmp_path / f"ranks-{number}", function, tmp_path, *arguments)


def test_a_machine_s_lost_memory_comes_back_from_the_next_one(tmp_path: Path) -> None:
    _group(tmp_path, _save)
    names = sorted(path.name for path in _slot(tmp_path, 0, 2).iterdir())
    files = [f"{kind}-0000{rank}-00000.safetensors" for kind in ("optimizer", "weights") for rank in (0, 1)]
    assert names == sorted([*files, INDEX, STATE, MANIFEST])
    for name in names:
        contents = [(_slot(tmp_path, machine, 2) / name).read_bytes() for machine in (0, 1)]
        assert contents[0] == contents[1], f"each machine has the other's files: {name}"
    shutil.rmtree(tmp_path / "memory-0")
    _group(tmp_path, _restore_and_save, 2, "memory")
    shutil.rmtree(tmp_path / "memory-1")
    _group(tmp_path, _assert_restored, 3, "memory")


def test_a_part_that_is_gone_from_both_machines_leads_to_the_disk(tmp_path: Path) -> None:
    _group(tmp_path, _save)
    for machine in (0, 1):
        for step in (1, 2):
            (_slot(tmp_path, machine, step) / "weights-00001-00000.safetensors").unlink()
    _group(tmp_path, _assert_restored, 1, "disk")


def test_a_part_that_is_damaged_in_memory_leads_to_the_one_before(tmp_path: Path) -> None:
    _group(tmp_path, _save)
    flip(_slot(tmp_path, 1, 2) / "weights-00001-00000.safetensors")
    _group(tmp_path, _assert_restored, 1, "memory")


def test_what_two_ranks_wrote_one_reads_and_the_other_way_round(tmp_path: Path) -> None:
    for folder in ("two", "one"):
        (tmp_path / folder).mkdir()
    _group(tmp_path / "two", _write_on_disk)
    assert restored(Store(tmp_path / "two" / "store"))[0] == 1
    written(Store(tmp_path / "one" / "store"), 1)
    _group(tmp_path / "one", _assert_restored, 1, "disk")


def test_each_machine_s_disk_has_its_own_part_and_the_store_has_all(
    tmp_path: Path, object_store: ObjectStore, bucket: str
) -> None:
    url, env = f"{bucket}/store", object_store.env
    _group(tmp_path, _in_a_bucket, url, env, False)
    on_disk = [{path.name for path in (tmp_path / f"cache-{n}").glob("*/*/*/step-*/*")} for n in (0, 1)]
    assert on_disk[0] & on_disk[1] == {MANIFEST}
    in_store = {name.rsplit("/", 1)[1] for name in Store(url).list(FOLDER)}
    assert in_store == on_disk[0] | on_disk[1] and {INDEX, STATE} <= in_store
    _group(tmp_path, _in_a_bucket, url, env, True)


def test_copies_are_spread_over_the_next_machine_s_ranks() -> None:
    machines = Machines((0, 0, 1, 1, 2), 0)
    assert [machines.keeper(rank) for rank in range(5)] == [2, 3, 4, 4, 0]
    assert machines.kept_by(4) == [2, 3] and machines.kept_by(1) == []
    assert Machines((0, 0), 1).keeper(0) is None
    assert [Machines((0, 0, 1), rank).is_leader for rank in range(3)] == [True, False, True]


def test_a_run_s_folder_in_memory_is_its_own(tmp_path: Path) -> None:
    places = [Store(tmp_path / name).where(FOLDER) for name in ("a", "b")]
    assert len({run_folder(place) for place in places}) == 2 and len(set(SLOTS)) == 2


def _save_where_one_is_full(base: Path) -> None:
    """The second machine has no room for the first one's state, twice; both go on, and step 2 stays in memory."""
    run = _join(base)
    run.restore()
    run.save(1)
    run.save(2, durable=False)
    real = exchange._allocate

    def full(path: Path, size: int) -> None:
        if path.name == STATE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, size)

    if os.environ["RANK"] == "1":
        exchange._allocate = full
    run.save(3, durable=False)
    run.save(4)
    exchange._allocate = real
    warnings = run.messages("warning")
    assert len(warnings) == 2 and all("No space left" in text for text in warnings), warnings
    run.leave()


def test_a_machine_without_room_for_copies_ends_no_run_and_costs_no_older_checkpoint(tmp_path: Path) -> None:
    _group(tmp_path, _save_where_one_is_full)
    assert _slot(tmp_path, 0, 2) and _slot(tmp_path, 1, 2)
    _group(tmp_path, _assert_restored, 4, "disk")
