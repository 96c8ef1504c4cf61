"""Real ranks in real processes over gloo, forked from a process that has imported PyTorch already.

A rank of torchrun starts from nothing and imports for seconds; four on two cores for a quarter of a minute. That
process is there once for all modules of a test run, and has the environment of the moment at which it was first asked
for.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

PRELOADED = [
    "pandas",
    "stages.training.loop.loop",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "tests.stages.training.prepared",
]
"""What a rank imports until it has written a checkpoint, by whomever."""
SECONDS = 300


def begin_imports() -> None:
    """Starts the process from which ranks are forked, if it is not there, and returns at once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def on_ranks(count: int, folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function(*arguments)` in as many processes, which form a process group.

    Args:
        folder: an empty one, for the meeting point and what went wrong.
        function: of a module, so that it travels by name.
    """
    folder.mkdir(parents=True)
    begin_imports()
    context = multiprocessing.get_context("forkserver")
    processes = [
        context.Process(target=_rank, args=(rank, count, folder, function, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
        trouble = [path.read_text() for path in sorted(folder.glob("trouble-*"))]
        assert [process.exitcode for process in processes] == [0] * count, "\n".join(trouble)
    finally:
        for process in processes:
            process.kill()


def _rank(rank: int, count: int, folder: Path, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= {name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    torch.set_num_threads(1)
    try:
        if count > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
        function(*arguments)
        if count > 1:
            dist.destroy_process_group()
    except BaseException:
        (folder / f"trouble-{rank}").write_text(traceback.format_exc())
        raise
