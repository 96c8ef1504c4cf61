"""The GPU's benchmark runs where only PyTorch, NumPy and PyArrow are installed, beside the model that we train."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.plain_model import PlainModel
from models.decoder import Decoder
from models.sizes import config_for_size
from tests.models.threads import one_thread
from tests.support import REPOSITORY

BARE = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fsspec", "mlflow", "pydantic", "psutil", "ray", "rich", "s3fs",
                                  "safetensors", "tokenizers", "transformers", "yaml"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
"""


def test_it_runs_with_pytorch_alone(tmp_path: Path):
    """The script and, one after the other, a process of each side."""
    (tmp_path / "sitecustomize.py").write_text(BARE)
    command = [sys.executable, str(REPOSITORY / "benchmarks/training_gpu.py"), "--device", "cpu", "--size", "1m"]
    done = subprocess.run(
        [*command, "--turns", "1", "--batch", "2", "--length", "32", "--json", "found.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["gpu"]["1m"].keys() == {"Headwater", "plain PyTorch"}
    assert all(side["tokens_per_second"]["median"] > 0 for side in found["gpu"]["1m"].values())
    assert found["not_measured"]["transformers, 1m"] == "No module named 'transformers'"
    assert "1m on the host's processor" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU: the output without one was not tested")
def test_without_a_gpu_it_names_what_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As a script, and in this process: another process would import PyTorch for this one line."""
    script = REPOSITORY / "benchmarks/training_gpu.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.syspath_prepend(str(script.parent))  # where a script finds those beside it
    for beside in ("child", "spread"):
        monkeypatch.delitem(sys.modules, beside, raising=False)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == "not measured: 125m, 350m, 1.3b on a GPU: none is there\n"


@pytest.mark.parametrize("size", ["1m", "350m"])
def test_the_plain_model_is_the_one_that_we_train(size: str):
    shape = config_for_size(size, 256, 16)
    if size == "350m":  # its head is one of its own: two layers are enough
        shape = type(shape)(**(vars(shape) | {"layers": 2}))
    ours, plain = Decoder(shape, -1, torch.float32), PlainModel(shape, 16)
    with one_thread(), torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.02)
        plain.embedding.weight.copy_(ours.model.embed_tokens.weight)
        plain.head.weight.copy_(ours.model.embed_tokens.weight if shape.tied else ours.lm_head.weight)
        plain.norm.weight.copy_(ours.model.norm.weight)
        for own, layer in zip(ours.model.layers, plain.layers, strict=True):
            attention, feed = own.self_attn, own.mlp
            layer.before.weight.copy_(own.input_layernorm.weight)
            layer.after.weight.copy_(own.post_attention_layernorm.weight)
            layer.of_queries.weight.copy_(attention.q_norm.weight)
            layer.of_keys.weight.copy_(attention.k_norm.weight)
            layer.mixed.weight.copy_(
                torch.cat([part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)])
            )
            layer.out.weight.copy_(attention.o_proj.weight)
            layer.gate_up.weight.copy_(torch.cat([feed.gate_proj.weight, feed.up_proj.weight]))
            layer.down.weight.copy_(feed.down_proj.weight)
        tokens = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
        _, nats = ours(tokens[:, :-1], tokens[:, 1:])
        mean = plain(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(mean, (nats.sum() / 32).float(), rtol=1e-5, atol=1e-5)
