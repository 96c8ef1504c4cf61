"""`headwater doctor`; its checks are in `infra.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import Json


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    as_json: Json = False,
) -> None:
    """Report what is missing, occupied or unsafe on this machine, and how to fix it. Exit code 1 for a problem."""
    # No settings are applied to this process: the checks look at the environment of the user's shell.
    from infra.doctor.diagnose import doctor as look

    raise typer.Exit(look(strict=strict, json_output=as_json))
