"""Global batches are the same for every number of ranks, also when it changes on the way: real loaders in processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.stages.tokens import loader_ranks
from tests.stages.tokens.loader_ranks import BATCH, STEPS
from tests.stages.tokens.token_streams import write_stream

RANKS = (1, 2, 3, 4, 7, 8)
LANES = (1, 4)

Run = tuple[list[list[str]], dict[str, Any]]
"""A run's global batches, each the rows of all ranks in turn, and the state that all ranks agree on."""


def run(folder: Path, steps: int, runs: dict[tuple[int, int], dict[str, Any]]) -> dict[tuple[int, int], Run]:
    """Runs of (lanes, ranks), each from a state on; neighbouring ranks are in different processes."""
    jobs = [[lanes, ranks, rank, state] for (lanes, ranks), state in runs.items() for rank in range(ranks)]
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
    for lanes, ranks in runs:
        parts = [by_job[lanes, ranks, rank] for rank in range(ranks)]
        assert len({part["pid"] for part in parts}) == min(ranks, 2)
        assert all(part["state"] == parts[0]["state"] for part in parts)
        batches = [[row for part in parts for row in part["rows"][step]] for step in range(steps)]
        found[lanes, ranks] = batches, parts[0]["state"]
    return found


def test_the_same_batches_for_every_number_of_ranks(tmp_path: Path) -> None:
    folder = write_stream(tmp_path, {"a": 90, "b": 33})
    start = {"position": 0, "skipped": []}
    whole = run(folder, STEPS, {(lanes, ranks): start for lanes in LANES for ranks in RANKS})
    for lanes in LANES:
        batches, state = whole[lanes, 1]
        assert [len(batch) for batch in batches] == [BATCH] * STEPS
        assert len({tuple(batch) for batch in batches}) == STEPS
        assert state == {"position": STEPS * BATCH, "skipped": []}
        for ranks in RANKS:
            assert whole[lanes, ranks] == (batches, state)
    assert whole[1, 1] != whole[4, 1]

    half = STEPS // 2  # seven ranks make the first half; from their state, every number of ranks the second
    first = run(folder, half, {(lanes, 7): start for lanes in LANES})
    second = run(folder, half, {(lanes, ranks): first[lanes, 7][1] for lanes in LANES for ranks in RANKS})
    for (lanes, _), (batches, state) in second.items():
        assert (first[lanes, 7][0] + batches, state) == whole[lanes, 1]
