"""`headwater export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import Json, load, out, print_json
from flows.cli.runs import Run
from flows.cli.upkeep import size
from stages.store.errors import ConfigError, StoreError


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder to write: a new or an empty one.")],
    step: Annotated[
        int | None, typer.Option("--step", min=0, help="Step of the checkpoint. Absent: the newest one.")
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="float32|bfloat16", help="Number format of the weights.")
    ] = "bfloat16",
    as_json: Json = False,
) -> None:
    """Write a checkpoint of a training run as a Hugging Face folder, whether it was finished, killed or goes on."""
    from flows.runs import find_run
    from stages.store import Store
    from stages.store import load as load_artifact
    from stages.training.export import ExportConfig, export_checkpoint

    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"--dtype: {dtype!r} is not a number format of weights; give float32 or bfloat16")
    store = Store(load().store)
    found = find_run(store, run)
    tokens = load_artifact(store, found.tokens)
    if tokens is None or tokens.digest != found.tokens_digest:
        raise StoreError(
            f"{found.name}: the tokens that it was trained on, {store.where(found.tokens)}, are gone, and with them "
            "its tokenizer; run its recipe again, which builds them"
        )
    config = ExportConfig(step=step, dtype=dtype)  # type: ignore[arg-type]
    folder = to.expanduser().absolute()
    base = load_artifact(store, found.base) if found.base else None
    if found.base and base is None:
        raise StoreError(f"{found.name}: the base that it went on from, {store.where(found.base)}, is gone")
    done, taken = export_checkpoint(store, found.folder, found.config, tokens, config, folder, base)
    if as_json:
        print_json(
            {
                "run": found.name,
                "step": taken,
                "folder": str(folder),
                "dtype": dtype,
                "parameters": done.parameters,
                "bytes": done.bytes,
                "held_bytes": done.held_bytes,
            }
        )
        return
    out.print(
        f"{found.name}, step {taken}: {done.parameters:,} parameters in {dtype}, {size(done.bytes)}, in {folder}; "
        f"tensors took {size(done.held_bytes)} of memory at most",
        markup=False,
        soft_wrap=True,
    )
