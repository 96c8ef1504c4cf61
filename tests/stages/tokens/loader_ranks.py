"""A process that holds some ranks' loaders: prints what each loads, rows as hex. Lean, since it is started often."""

from __future__ import annotations

import json
import os
import sys

from stages.tokens.loader import Loader
from stages.tokens.order import Order, Phase
from stages.tokens.reader import TokenReader

BATCH, STEPS = 24, 20


def main(folder: str, steps: str, jobs: str) -> None:
    """Loads `steps` batches for each job: (lanes, ranks, rank, the state to go on from)."""
    reader = TokenReader(folder)
    for lanes, ranks, rank, state in json.loads(jobs):
        order = Order(reader.shards, "d", 1, [Phase(BATCH * STEPS)], 2, lanes)
        loader = Loader(reader, order, BATCH, rank, ranks)
        loader.load_state_dict(state)
        rows = [[row.tobytes().hex() for row in next(loader).rows] for _ in range(int(steps))]
        print(json.dumps({"job": [lanes, ranks, rank], "rows": rows, "state": loader.state_dict(), "pid": os.getpid()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
