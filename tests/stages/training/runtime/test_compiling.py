"""Layers through PyTorch's compiler: the same model under the same names. Only a GPU's would be used in a run."""

from __future__ import annotations

import pytest
import torch

from models.decoder import Decoder
from models.kernels.library import OFF
from models.sizes import ModelConfig
from stages.store.errors import ConfigError
from stages.training.runtime.compiling import compile_layers, wants_compiler
from tests.models.small import initialize


def test_compiled_layers_compute_the_same(monkeypatch):
    monkeypatch.setenv(OFF, "off")
    tokens, targets = torch.randint(1, 64, (2, 2, 16), generator=torch.Generator().manual_seed(0))
    results = []
    for compiled in (False, True):
        model = Decoder(ModelConfig(64, 16, 1, 2, 1, 8, 32), 0)
        initialize(model, seed=0)
        if compiled:
            compile_layers(model, "aot_eager")  # traced and differentiated; kernels are generated on GPUs only
        loss, nats = model(tokens, targets)
        loss.backward()
        results.append((nats, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (nats, gradients), (compiled_nats, compiled_gradients) = results
    torch.testing.assert_close(compiled_nats, nats)
    assert compiled_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_on_a_cpu_nothing_is_compiled():
    cpu = torch.device("cpu")
    assert not wants_compiler("auto", cpu) and not wants_compiler("off", cpu)
    with pytest.raises(ConfigError, match="leave it at auto"):
        wants_compiler("on", cpu)


def test_on_a_gpu_layers_are_compiled_where_triton_is_installed(monkeypatch):
    gpu = torch.device("cuda")
    for triton in (True, False):
        monkeypatch.setattr("stages.training.runtime.compiling.find_spec", lambda name, triton=triton: triton or None)
        assert wants_compiler("auto", gpu) == triton and not wants_compiler("off", gpu)
    with pytest.raises(ConfigError, match="triton"):
        wants_compiler("on", gpu)
