"""A cold process up to its first batch: `tokens_first.py WHO OPTIONS`, OPTIONS the arguments of `tokens_open`'s WHO.

Prints `FIRST` and the seconds since its imports ended; the parent process measures the total.
"""

import json
import sys
import time
from importlib import import_module
from pathlib import Path


def main() -> None:
    who, options = sys.argv[1], json.loads(sys.argv[2])
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import tokens_open

    modules = tokens_open.IMPORTS[who] + (("torch",) if options.get("tensors") else ())
    for name in modules:
        import_module(name)
    began = time.perf_counter()
    batch = next(getattr(tokens_open, who)(**{k: Path(v) if isinstance(v, str) else v for k, v in options.items()}))
    print("FIRST", time.perf_counter() - began, len(batch), flush=True)


if __name__ == "__main__":
    main()
