"""``python -m stages.sample FOLDER [--seed N] [--megabytes X]`` writes the biomedical sample; prints counts as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stages.sample.biomed.generate import generate


def main(arguments: list[str] | None = None) -> None:
    """Generates the biomedical sample that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stages.sample", description="Writes the biomedical sample.")
    parser.add_argument("folder", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generator (default 1)")
    parser.add_argument("--megabytes", type=float, default=10.0, help="approximate size of the text (default 10)")
    options = parser.parse_args(arguments)
    print(json.dumps(generate(options.folder, options.seed, options.megabytes), indent=2))


if __name__ == "__main__":
    main()
