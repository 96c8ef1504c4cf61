"""Tensors put together from their pieces, however they were cut, without holding one twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.store import StoreError
from stages.training.checkpoint import weights as weights_module
from stages.training.checkpoint.format import WEIGHT_PREFIX, Index
from stages.training.checkpoint.weights import CheckpointWeights


def _cut(whole: Tensor, parts: list[tuple[tuple[int, ...], Tensor]], folder: Path) -> CheckpointWeights:
    """A checkpoint of one tensor in pieces, each at byte 8 of a file."""
    pieces = []
    for number, (start, part) in enumerate(parts):
        (folder / f"{number}").write_bytes(bytes(8) + part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        pieces.append({"file": f"{number}", "offset": 8, "start": start, "shape": tuple(part.shape)})
    entry = {"dtype": "F32", "shape": tuple(whole.shape), "pieces": pieces}
    return CheckpointWeights(
        Index.model_validate({"format": 2, "tensors": {f"{WEIGHT_PREFIX}a": entry}}), folder.joinpath
    )


WHOLE = torch.arange(60.0).view(6, 10)
CUTS: list[Any] = [
    pytest.param(WHOLE, [((0, 0), WHOLE)], id="one"),
    pytest.param(WHOLE, [((4, 0), WHOLE[4:]), ((0, 0), WHOLE[:4])], id="rows"),
    pytest.param(WHOLE, [((0, 0), WHOLE[:, :3]), ((0, 3), WHOLE[:, 3:])], id="columns"),
    pytest.param(WHOLE, [((0, 0), WHOLE[:3, :5]), ((3, 0), WHOLE[3:, :5]), ((0, 5), WHOLE[:, 5:])], id="blocks"),
    pytest.param(torch.tensor(2.5), [((), torch.tensor(2.5))], id="scalar"),
    pytest.param(torch.empty(0, 3), [], id="empty"),
]


@pytest.mark.parametrize(("whole", "parts"), CUTS)
def test_a_tensor_is_put_together(whole: Tensor, parts: list[tuple[tuple[int, ...], Tensor]], tmp_path: Path):
    weights = _cut(whole, parts, tmp_path)
    assert weights.shapes == {"a": tuple(whole.shape)}
    assert torch.equal(weights.read("a"), whole)


def test_rows_are_read_into_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = _cut(WHOLE, [((0, 0), WHOLE[:4]), ((4, 0), WHOLE[4:])], tmp_path)
    allocated = []
    real = torch.empty

    def empty(shape: tuple[int, ...], **more: Any) -> Tensor:
        allocated.append(shape)
        return real(shape, **more)

    monkeypatch.setattr(weights_module.torch, "empty", empty)
    weights.read("a")
    assert allocated == [(6, 10)]


def test_a_file_that_is_short_or_gone_is_named(tmp_path: Path):
    weights = _cut(WHOLE, [((0, 0), WHOLE)], tmp_path)
    (tmp_path / "0").write_bytes(bytes(100))
    with pytest.raises(StoreError, match="0 is shorter than its index says"):
        weights.read("a")
    (tmp_path / "0").unlink()
    with pytest.raises(StoreError, match="cannot be read any more"):
        weights.read("a")
