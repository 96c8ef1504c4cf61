"""Property: what any number of ranks write, any number read back with every bit, and SafeTensors reads it too."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from stages.store import StoreError
from stages.training.checkpoint import layout
from stages.training.checkpoint.format import CheckpointFile, Index, Manifest, join, parse_index
from stages.training.checkpoint.layout import DTYPES, LocalPiece, describe_files, plan_files
from stages.training.checkpoint.reading import Filler, misfits, needed_files
from stages.training.checkpoint.staging import Slot
from stages.training.checkpoint.writing import write_file
from tests.support import examples


@st.composite
def _tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    found = {}
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 7]), max_size=3))
        dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        dice = torch.Generator().manual_seed(draw(st.integers(0, 1 << 20)))
        size = (math.prod(shape) * dtype.itemsize,)
        raw = torch.randint(0, 256, size, dtype=torch.uint8, generator=dice)  # any bits, NaNs with a payload too
        kind = draw(st.sampled_from(["weight", "average"]))
        found[f"{kind}.{number}"] = raw.view(dtype).reshape(shape)
    return found


@st.composite
def _cuts(draw: st.DrawFn, tensors: Mapping[str, Tensor], ranks: int) -> list[list[LocalPiece]]:
    """Each rank's pieces: every tensor is cut along one dimension, which is nearly always the rows, into parts of any
    size, some of them empty."""
    pieces: list[list[LocalPiece]] = [[] for _ in range(ranks)]
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            pieces[draw(st.integers(0, ranks - 1))].append(LocalPiece(name, tensor.clone(), (), ()))
            continue
        cut = draw(st.sampled_from([0, 0, 0, tensor.ndim - 1]))
        rows = tensor.shape[cut]
        at = sorted(draw(st.lists(st.integers(0, rows), min_size=ranks - 1, max_size=ranks - 1)))
        for rank, (first, end) in enumerate(pairwise([0, *at, rows])):
            part = tensor.narrow(cut, first, end - first).clone(memory_format=torch.contiguous_format)
            start = tuple(first if d == cut else 0 for d in range(tensor.ndim))
            if part.numel():
                pieces[rank].append(LocalPiece(name, part, tuple(tensor.shape), start))
    return pieces


def _write(writers: list[list[LocalPiece]], folder: Path) -> tuple[Manifest, Index]:
    """As each rank writes its part."""
    parts, entries = [], []
    for rank, pieces in enumerate(writers):
        plans = plan_files(pieces, rank)
        slot = Slot(plans)
        with ThreadPoolExecutor(1) as pool:
            slot.start_copy(pool)
            slot.wait_readable()
        for plan, memory in zip(plans, slot.memory, strict=True):
            entries.append(write_file(memoryview(memory), plan.path, folder / plan.path))
        slot.close()
        parts.append(describe_files(plans))
    return Manifest(step=1, attempt="0" * 32, world=len(writers), files=entries), join(parts)


def _raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@given(data=st.data(), tensors=_tensors(), writers=st.integers(1, 5), readers=st.integers(1, 5))
@examples(40)
def test_any_number_of_ranks_read_back_every_bit(
    data: st.DataObject, tensors: dict[str, Tensor], writers: int, readers: int
) -> None:
    ours = data.draw(_cuts(tensors, writers))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "FILE_BYTES", 100)  # several files a rank
        folder = Path(name)
        manifest, index = _write(ours, folder)
        assert Index.model_validate_json(index.model_dump_json()) == index
        _stock_safetensors_reads_the_same(ours, folder, index)
        for theirs in data.draw(_cuts(tensors, readers)):
            expected = [_raw(piece.tensor) for piece in theirs]
            for piece in theirs:
                piece.tensor.view(-1).view(torch.uint8).fill_(0xA5)
            filler = Filler(folder, manifest, index, theirs)
            files = needed_files(index, theirs)
            assert data.draw(st.booleans()) or filler.fill_verified(files) == []
            filler.fill(files)
            assert [_raw(piece.tensor) for piece in theirs] == expected


def _stock_safetensors_reads_the_same(ours: list[list[LocalPiece]], folder: Path, index: Index) -> None:
    found = {}
    for file in sorted(index.files()):
        with safe_open(str(folder / file), "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                found[name, file.split("-")[1]] = opened.get_tensor(name)
    for rank, pieces in enumerate(ours):
        for piece in pieces:
            read = found.pop((piece.name, f"{rank:05}"))
            assert read.shape == piece.tensor.shape and _raw(read) == _raw(piece.tensor)
    assert not found


def test_files_have_hardly_more_bytes_than_the_state(tmp_path: Path) -> None:
    tensors = {f"{kind}.{n}": torch.zeros(256, 256) for kind in ("weight", "first", "second") for n in range(8)}
    manifest, index = _write([[LocalPiece(n, t, tuple(t.shape), (0, 0)) for n, t in tensors.items()]], tmp_path)
    state = sum(tensor.nbytes for tensor in tensors.values())
    assert state <= sum(entry.bytes for entry in manifest.files) + len(index.model_dump_json()) <= 1.02 * state


def _index(*pieces: tuple[list[int], list[int]], shape: tuple[int, ...] = (4, 3)) -> dict[str, Any]:
    placed = [{"file": "w", "offset": 0, "start": start, "shape": size} for start, size in pieces]
    return {"tensors": {"weight.x": {"dtype": "F32", "shape": [*shape], "pieces": placed}}}


WRONG = {
    "missing": _index(([0, 0], [3, 3])),
    "overlapping": _index(([0, 0], [3, 3]), ([2, 0], [1, 3])),
    "overlapping in both dimensions": _index(([0, 0], [2, 3]), ([1, 1], [2, 2]), ([0, 0], [2, 1])),
    "twice": _index(([0, 0], [2, 3]), ([0, 0], [2, 3])),
    "outside": _index(([0, 0], [3, 3]), ([4, 0], [1, 3])),
    "of another dimension": _index(([0], [4])),
    "negative": _index(([0, 0], [5, 3]), ([0, 0], [-1, 3])),
}


@pytest.mark.parametrize("name", [*WRONG])
def test_pieces_that_do_not_make_up_a_tensor_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"piece|greater than or equal"):
        Index.model_validate(WRONG[name])


@given(data=st.data(), rows=st.integers(2, 9), columns=st.integers(2, 9))
@examples(30)
def test_tiles_make_up_a_tensor_until_one_moves(data: st.DataObject, rows: int, columns: int) -> None:
    down, across = (data.draw(st.integers(1, size - 1)) for size in (rows, columns))
    tiles = [
        ([top, left], [bottom - top, right - left])
        for top, bottom in ((0, down), (down, rows))
        for left, right in ((0, across), (across, columns))
    ]
    Index.model_validate(_index(*tiles, shape=(rows, columns)))
    start = data.draw(st.sampled_from(tiles))[0]
    start[data.draw(st.integers(0, 1))] += data.draw(st.sampled_from([-1, 1]))
    with pytest.raises(ValueError):
        Index.model_validate(_index(*tiles, shape=(rows, columns)))


@pytest.mark.parametrize(("offset", "size"), [(53, 100), (0, 47), (1 << 59, 100), (0, None)])
def test_pieces_outside_of_their_file_are_refused(offset: int, size: int | None) -> None:
    record = _index(([0, 0], [4, 3]))
    record["tensors"]["weight.x"]["pieces"][0]["offset"] = offset
    files = [CheckpointFile(path="w", bytes=size, sha256="0" * 64)] if size is not None else []
    manifest = Manifest(step=1, attempt="0" * 32, world=1, files=files)
    content = Index.model_validate(record).model_dump_json().encode()
    with pytest.raises(StoreError, match=r"here is not a checkpoint's index: .*outside of w"):
        parse_index(content, manifest, "here")


def test_what_does_not_fit_the_model_is_named() -> None:
    index = Index.model_validate(_index(([0, 0], [4, 3])))
    assert misfits(index, {"weight.x": ("F32", (4, 3))}) == ""
    assert misfits(index, {"weight.x": ("BF16", (4, 3))}) == "its weight.x is F32 [4, 3], not BF16 [4, 3]"
    assert misfits(index, {"weight.x": ("F32", (4, 3)), "weight.y": ("F32", (1,))}) == "it has no weight.y"
    assert misfits(index, {}) == "its weight.x is not a tensor of this model"
