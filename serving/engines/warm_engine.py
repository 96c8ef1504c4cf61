"""An interpreter that has already imported vLLM and waits for a model to serve.

Run by the serving environment's Python, with the standard library and vLLM only. It imports vLLM's OpenAI server, then
reads one line of JSON from standard input, `{"argv": [...], "env": {...}}`, and continues exactly as
`python -m vllm.entrypoints.openai.api_server ARGV` would. Importing takes about half of vLLM's start-up.

On Linux priorities are per thread: the imports run in a thread of low priority, so that they do not slow down a
training run, and the main thread, which serves later, keeps normal priority. (A process that lowers its own priority
cannot raise it again without privileges.)
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import threading
from typing import Any

MODULE = "vllm.entrypoints.openai.api_server"
NICE = 10
"""Gets a tenth of a core beside a busy process; at 19 the imports would not end within a training run."""


def import_ahead(architectures: list[str]) -> None:
    """Imports the server and inspects these model classes, at low priority."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    importlib.import_module(MODULE)
    for name in ("vllm.v1.engine.async_llm", "vllm.entrypoints.launchers.cli_args", "uvloop"):
        importlib.import_module(name)
    # vLLM inspects a model class in a subprocess (7 s) and caches the result on disk.
    registry = importlib.import_module("vllm.model_executor.models.registry").ModelRegistry
    for architecture in architectures:
        registry.models[architecture].inspect_model_cls()


def main() -> None:
    """Imports, waits for the line, and runs the server."""
    worker = threading.Thread(target=import_ahead, args=(sys.argv[1:],))
    worker.start()
    line = sys.stdin.readline()
    worker.join()
    if not line:  # end of input: the gateway has ended
        return
    assignment = json.loads(line)
    os.environ.update(assignment["env"])
    # PyTorch has read this variable at its import; its setting counts whenever something is to be compiled.
    dynamo: Any = importlib.import_module("torch._dynamo.config")
    dynamo.disable = os.environ.get("TORCH_COMPILE_DISABLE") == "1"
    sys.argv = [MODULE, *assignment["argv"]]
    del sys.modules[MODULE]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
