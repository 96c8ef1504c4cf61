"""A vLLM interpreter that has its imports behind it and waits to be told what to serve.

Run by the serving environment's Python, with nothing but the standard library and vLLM. It imports vLLM's OpenAI
server, then reads one JSON line from standard input, `{"argv": [...], "env": {...}}`, and goes on exactly as
`python -m vllm.entrypoints.openai.api_server ARGV` would. Importing takes about half of vLLM's start-up.

Linux has priorities per thread: the imports run in a thread of low priority, so that they do not slow down a
training run, and the main thread, which serves later, keeps its own. (A process that lowers its own could not raise it
again without privileges.)
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import threading

MODULE = "vllm.entrypoints.openai.api_server"
NICE = 10
"""A tenth of a core beside a busy process; at 19 the imports would not be done within a training run."""


def import_ahead(architectures: list[str]) -> None:
    """Imports what the server and its model need, at low priority."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    importlib.import_module(MODULE)
    for name in ("vllm.v1.engine.async_llm", "vllm.entrypoints.launchers.cli_args", "uvloop"):
        importlib.import_module(name)
    # vLLM looks at a model class in a process of its own (7 s) and remembers the result on disk: have that done.
    registry = importlib.import_module("vllm.model_executor.models.registry").ModelRegistry
    for architecture in architectures:
        registry.models[architecture].inspect_model_cls()


def main() -> None:
    worker = threading.Thread(target=import_ahead, args=(sys.argv[1:],))
    worker.start()
    line = sys.stdin.readline()
    worker.join()
    if not line:  # nobody is there any more
        return
    order = json.loads(line)
    os.environ.update(order["env"])
    sys.argv = [MODULE, *order["argv"]]
    del sys.modules[MODULE]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
