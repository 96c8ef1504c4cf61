"""One process of a run: `python -m stages.training RUN.json`, or under `torchrun --module stages.training RUN.json`.

RUN.json holds a `Run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stages.training.imports import without_collections
from stages.training.run import Run


def main() -> None:
    """Trains, and leaves the other ranks in order."""
    with without_collections():
        from stages.training.loop import train
        from stages.training.parallel import leave
    train(Run(**json.loads(Path(sys.argv[1]).read_text())))
    leave()


if __name__ == "__main__":
    main()
