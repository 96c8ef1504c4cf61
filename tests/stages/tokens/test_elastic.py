"""Global batches are the same for every number of ranks, also when it changes during a run: loaders in processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.stages.tokens import loader_ranks
from tests.stages.tokens.loader_ranks import BATCH, STEPS
from tests.stages.tokens.token_streams import write_stream

RANKS = (1, 2, 3, 4, 7, 8)
STREAMS = (1, 4)

Batches = list[list[str]]
"""A run's global batches, each the rows of all ranks in turn."""


def run(folder: Path, first: int, steps: int) -> dict[tuple[int, int], Batches]:
    """Batches from step `first` on by (streams, ranks); neighbouring ranks are in different processes."""
    runs = [(streams, ranks) for streams in STREAMS for ranks in RANKS]
    jobs = [[streams, ranks, rank, first] for streams, ranks in runs for rank in range(ranks)]
    command = [sys.executable, "-m", loader_ranks.__name__, str(folder), str(steps)]
    processes = [
        subprocess.Popen([*command, json.dumps(jobs[part::2])], stdout=subprocess.PIPE, text=True) for part in range(2)
    ]
    lines = []
    for process in processes:
        lines += [json.loads(line) for line in process.communicate()[0].splitlines()]
        assert process.returncode == 0
    by_job = {tuple(line["job"]): line for line in lines}
    found = {}
    for streams, ranks in runs:
        parts = [by_job[streams, ranks, rank] for rank in range(ranks)]
        assert len({part["pid"] for part in parts}) == min(ranks, 2)
        found[streams, ranks] = [[row for part in parts for row in part["rows"][step]] for step in range(steps)]
    return found


def test_the_same_batches_for_every_number_of_ranks(tmp_path: Path) -> None:
    folder = write_stream(tmp_path, {"a": 90, "b": 33})
    whole = run(folder, 0, STEPS)
    for streams in STREAMS:
        batches = whole[streams, 1]
        assert [len(batch) for batch in batches] == [BATCH] * STEPS
        assert len({tuple(batch) for batch in batches}) == STEPS
        for ranks in RANKS:
            assert whole[streams, ranks] == batches
    assert whole[1, 1] != whole[4, 1]

    half = STEPS // 2  # the second half alone, as after a restart with another number of ranks
    for run_of, batches in run(folder, half, STEPS - half).items():
        assert batches == whole[run_of][half:]
