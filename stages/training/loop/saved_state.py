"""What a checkpoint holds beside tensors, as plain JSON values, and what is checked when it is read."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from stages.store.fields import Printable
from stages.training.loop.data import DataState
from stages.training.metrics.history import History
from stages.training.preflight.checks import IDENTITY, describe_other_run

if TYPE_CHECKING:
    from stages.training.run import Run

_Count = Annotated[int, Field(ge=0, lt=1 << 60, strict=True)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    update: _Count
    position: _Count
    skipped: list[tuple[_Count, _Count]]


class SavedState(BaseModel):
    """The content of `state.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    identity: dict[str, Any]
    """`Run.identity`."""
    data: _Data
    precision: Literal["bf16", "fp32"]
    """Number format of the products: a run keeps the one that it began with."""
    matmul_backend: Printable
    """How matrix products are computed, kept likewise."""
    rng: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=1 << 16)]
    """The random generator's state in hex digits."""
    history: dict[str, Any]
    """`History.state`."""

    def data_state(self) -> DataState:
        return DataState(self.data.update, self.data.position, [list(pair) for pair in self.data.skipped])


def encoder(
    run: Run, data: DataState, precision: str, matmul_backend: str, history: History
) -> Callable[[], dict[str, Any]]:
    """Takes down the state as it is now; what is returned gives it as JSON values, and may be called in a thread."""
    identity, rng, recorded = run.identity(), rng_state(), history.snapshot()
    progress = data.as_dict() | {"skipped": [*map(list, data.skipped)]}  # which grows

    def encode() -> dict[str, Any]:
        return {
            IDENTITY: identity,
            "data": progress,
            "precision": precision,
            "matmul_backend": matmul_backend,
            "rng": rng,
            "history": recorded.state(),
        }

    return encode


def parse(state: Mapping[str, Any]) -> tuple[SavedState, History]:
    """A checkpoint's state, and the history in it.

    Raises:
        ValueError: it is not one.
    """
    saved = SavedState.model_validate(state)
    set_rng_state(saved.rng, try_only=True)
    try:
        return saved, History.from_state(saved.history, saved.data.update)
    except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
        raise ValueError(f"its history cannot be read: {error}") from error


def reader(run: Run) -> Callable[[Mapping[str, Any]], tuple[SavedState, History]]:
    """`parse` for the checkpoints of one run: a state of another one is a ValueError too, which says what differs."""

    def read(state: Mapping[str, Any]) -> tuple[SavedState, History]:
        if other := describe_other_run(state, run):
            raise ValueError(other)
        return parse(state)

    return read


def rng_state() -> str:
    """The random generator's state, as hex digits."""
    return bytes(torch.get_rng_state().numpy()).hex()


def set_rng_state(state: str, *, try_only: bool = False) -> None:
    """Sets the random generator.

    Raises:
        ValueError: it is not a state of this version's generator.
    """
    try:
        target = torch.Generator() if try_only else torch.default_generator
        target.set_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))
    except RuntimeError as error:
        raise ValueError(f"its random generator's state cannot be used: {error}") from error
