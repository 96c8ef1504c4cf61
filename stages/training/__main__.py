"""One process of a run: `python -m stages.training RUN.json`, or under `torchrun --module stages.training RUN.json`.

RUN.json holds a `Run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stages.store.private_files import keep_private
from stages.training.run import Run
from stages.training.runtime.process import without_collections


def main() -> None:
    """Trains, and destroys the process group."""
    keep_private()
    with without_collections():
        from stages.training.loop.loop import train
        from stages.training.parallelism.ranks import destroy_process_group
    train(Run(**json.loads(Path(sys.argv[1]).read_text())))
    destroy_process_group()


if __name__ == "__main__":
    main()
