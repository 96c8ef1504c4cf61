"""A process with the loaders of some ranks: prints the rows of each in hex. Lean, since it is started often."""

from __future__ import annotations

import json
import os
import sys

from stages.tokens.loader import Loader
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.reader import TokenReader

BATCH, STEPS = 24, 20


def main(folder: str, steps: str, jobs: str) -> None:
    """Loads `steps` batches for each job: (streams, ranks, rank, first step)."""
    reader = TokenReader(folder)
    for streams, ranks, rank, first in json.loads(jobs):
        order = Order(reader.shards, "d", 1, [Phase(BATCH * STEPS)], 2, streams)
        loader = Loader(reader, order, BATCH, rank, ranks)
        rows = [[row.tobytes().hex() for row in loader[step].rows] for step in range(first, first + int(steps))]
        print(json.dumps({"job": [streams, ranks, rank], "rows": rows, "pid": os.getpid()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
