"""`headwater doctor`: the command; what it looks at is in `infra.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.console import Json


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is missing, occupied or unsafe here, and how to mend it. Exit code 0: fine, 1: a problem."""
    # Imported here, and no settings are applied to this process: what the user's shell has set is what is looked at.
    from infra.doctor.diagnose import doctor as look

    raise typer.Exit(look(strict=strict, json_output=as_json))
