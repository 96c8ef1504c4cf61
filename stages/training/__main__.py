"""One process of a run: `python -m stages.training RUN.json`, or under `torchrun --module stages.training RUN.json`.

RUN.json holds a `Run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stages.training.run import Run
from stages.training.runtime.imports import without_collections


def main() -> None:
    """Trains, and leaves the other ranks in order."""
    with without_collections():
        from stages.training.loop.loop import train
        from stages.training.parallelism.ranks import leave
    train(Run(**json.loads(Path(sys.argv[1]).read_text())))
    leave()


if __name__ == "__main__":
    main()
