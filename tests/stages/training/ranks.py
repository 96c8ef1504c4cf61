"""Real ranks in real processes over gloo, forked from a process that has imported PyTorch already.

A rank of torchrun starts a new interpreter and imports for seconds; four on two cores for a quarter of a minute. The
forking process is started once for all modules of a test run, and keeps the environment of that moment.
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
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "tests.stages.training.prepared",
]
"""Everything that a rank imports until it has written a checkpoint."""
SECONDS = 300


def begin_imports() -> None:
    """Starts the process from which ranks are forked, if it is not running, and returns at once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def on_ranks(count: int, folder: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function(*arguments)` in as many processes, which form a process group.

    Args:
        folder: an empty one, for the rendezvous file and tracebacks.
        function: defined in a module, so that it is pickled by name.
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
        tracebacks = [path.read_text() for path in sorted(folder.glob("traceback-*"))]
        assert [process.exitcode for process in processes] == [0] * count, "\n".join(tracebacks)
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
            dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
        function(*arguments)
        if count > 1:
            dist.destroy_process_group()
    except BaseException:
        (folder / f"traceback-{rank}").write_text(traceback.format_exc())
        raise
