"""What a process imports before its first step; each further import would delay it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

from infra.settings import REPOSITORY
from stages.store import Artifact
from stages.training.runtime.process import without_collections
from tests.stages.training.prepared import path, prepare

FIRST_STEP = """
import json, sys
from pathlib import Path

from stages.training.loop.loop import Loop
from stages.training.run import Run
from stages.training.stop import StopFlag

run = Run(**json.loads(Path(sys.argv[1]).read_text()))
loop = Loop(run, StopFlag(run, poll=True))
batch = loop.state.data.batch(0)
loop._boundary(batch)
loop._step(0, batch)
print(*sys.modules)
"""


def _imported(code: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.split())


def test_one_process_reaches_its_first_step_without_compiler_sympy_and_dtensor(tokens_artifact: Artifact, tmp_path):
    run = prepare(tmp_path, tokens_artifact, steps=1, schedule__warmup_steps=0)
    file = path(run, "run.json")
    file.write_text(json.dumps(run.as_dict()))
    imported = _imported(FIRST_STEP, str(file))
    slow = {
        "torch._dynamo",
        "torch.distributed.checkpoint",
        "torch.distributed.tensor",
        "torch.distributed.fsdp",
        "sympy",
    }
    assert "torch" in imported
    assert not imported & (slow | {"transformers", "pandas", "mlflow", "ray"})


def test_a_recipe_is_read_without_pytorch():
    """Imported together, so that one check covers both: neither imports PyTorch."""
    modules = {"stages.training", "flows.recipe"}
    imported = _imported(f"import sys, {', '.join(sorted(modules))}; print(*sys.modules)")
    assert modules <= imported
    assert "torch" not in imported


def test_garbage_collection_skips_what_was_imported():
    before = gc.get_freeze_count()
    try:
        with without_collections():
            assert not gc.isenabled()
            lists = [[] for _ in range(100)]
        assert gc.isenabled() and gc.get_freeze_count() >= before + len(lists)
    finally:
        gc.unfreeze()
