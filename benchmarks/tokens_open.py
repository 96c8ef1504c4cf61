"""The loaders that `benchmarks/tokens.py` compares, each opened at a row of its order: endless int64 tensors [16, S].

Every function imports what it needs when it is called, so that a process that reads with one of them has imported
nothing of the others. Rivals have the settings that are fastest here: no worker processes unless asked for, and
the collation that costs least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH = 16
SEED, DIGEST, WINDOW = 1, "0" * 64, 16
"""Of every order of ours that is measured; shards per shuffle window as in training."""

IMPORTS = {
    "headwater": ("stages.tokens.loader",),
    "memmap": ("numpy",),
    "streaming": ("torch", "streaming"),
    "litdata": ("torch", "litdata"),
    "hf_indices": ("torch", "datasets"),
    "hf_loader": ("torch", "datasets"),
}
"""What each imports before it can read."""


def headwater(folder: Path, samples: int, at: int = 0, full: bool = False, tensors: bool = True) -> Iterator[Any]:
    """Ours, the order of a run of so many samples computed inside; with `full` a tuple of inputs and targets."""
    import numpy as np

    from stages.tokens.batch import model_inputs
    from stages.tokens.loader import Loader
    from stages.tokens.order import Order
    from stages.tokens.phase import Phase
    from stages.tokens.reader import TokenReader

    reader = TokenReader(folder / "stream")
    loader = Loader(reader, Order(reader.shards, DIGEST, SEED, [Phase(samples)], WINDOW), BATCH)
    for step in range(at // BATCH, len(loader)):
        rows = loader[step].rows
        found = tuple(model_inputs(rows, reader.eos_id)) if full else rows.astype(np.int64)
        if tensors:
            import torch

            found = tuple(torch.from_numpy(part) for part in found) if full else torch.from_numpy(found)
        yield found


def streaming(folder: Path, at: int = 0, workers: int = 0) -> Iterator[Any]:
    """MosaicML Streaming on local MDS, shuffled by py1e."""
    import numpy as np
    import torch
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    def collate(rows: list[dict[str, Any]]) -> Any:
        return torch.from_numpy(np.stack([row["tokens"] for row in rows]).astype(np.int64))

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder / "mds"), shuffle=True, shuffle_seed=SEED, batch_size=BATCH)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=collate, num_workers=workers, drop_last=True)
    if at:
        state = {"epoch": 0, "sample_in_epoch": at, "num_canonical_nodes": 1, "shuffle_seed": SEED}
        loader.load_state_dict(state)
    while True:
        yield from loader


def litdata(folder: Path, at: int = 0, workers: int = 0) -> Iterator[Any]:
    """LitData's stream of tokens, shuffled."""

    loader = litdata_loader(folder, workers)
    if at:
        state = json.loads((folder / "litdata.json").read_text())
        state["num_samples_yielded"] = state["dataset"]["num_samples_yielded"] = at
        state["dataset"]["sample_in_epoch"] = at
        loader.load_state_dict(state)
    while True:
        yield from loader


def litdata_loader(folder: Path, workers: int = 0) -> Any:
    """LitData's loader as it is before a state is loaded."""
    import torch
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    def collate(rows: list[Any]) -> Any:
        return torch.stack(rows).to(torch.int64)

    blocks = TokensLoader(block_size=_sequence(folder))
    dataset = StreamingDataset(str(folder / "litdata"), item_loader=blocks, shuffle=True, seed=SEED, drop_last=True)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)


def hf_loader(folder: Path, at: int = 0, workers: int = 0) -> Iterator[Any]:
    """Hugging Face datasets in torch's format under a shuffling DataLoader, the way that its pages show."""
    import datasets
    import torch

    def collate(rows: list[dict[str, Any]]) -> Any:
        return torch.stack([row["tokens"] for row in rows]).to(torch.int64)

    dataset = datasets.load_from_disk(str(folder / "hf")).with_format("torch")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate, num_workers=workers
    )
    while True:
        yield from loader


def hf_indices(folder: Path, at: int = 0) -> Iterator[Any]:
    """Hugging Face datasets asked for 16 rows at once by a permutation in memory, faster than under a DataLoader."""
    import datasets
    import numpy as np
    import torch

    dataset = datasets.load_from_disk(str(folder / "hf")).with_format("torch")
    order = np.random.default_rng(SEED).permutation(len(dataset))
    while True:
        for first in range(at, len(order) - BATCH + 1, BATCH):
            yield dataset[order[first : first + BATCH]]["tokens"].to(torch.int64)
        at = 0


def memmap(path: Path, tensors: bool) -> Iterator[Any]:
    """One plain array of rows, mapped, at random places: what nothing can be faster than."""
    import numpy as np

    array = np.load(path, mmap_mode="r")
    draw = np.random.default_rng(SEED)
    while True:
        rows = array[draw.integers(0, len(array), BATCH)].astype(np.int64)
        if tensors:
            import torch

            yield torch.from_numpy(rows)
        else:
            yield rows


def _sequence(folder: Path) -> int:
    import numpy as np

    return int(np.load(folder / "npy" / "00000.npy", mmap_mode="r").shape[1])
