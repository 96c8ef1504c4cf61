"""`headwater open`: the way into the pages of Prefect and MLflow."""

from __future__ import annotations

import webbrowser
from typing import Annotated, Literal

import typer

from flows.cli.console import Json, err, load, out, print_json
from stages.store.errors import HeadwaterError


def open_page(
    service: Annotated[Literal["prefect", "mlflow"], typer.Argument(help="Whose pages to open.")],
    as_json: Json = False,
) -> None:
    """Open the pages of Prefect or MLflow in a browser, and show the password that they ask for once.

    The password is printed in a terminal only; elsewhere the file that contains it is named.
    """
    from infra.credentials import USER, credential_file, password
    from infra.services import status as service_status

    settings = load()
    row = next(row for row in service_status(settings) if row["service"] == service)
    if not row["healthy"]:
        raise HeadwaterError(f"{service} does not answer; `headwater up` starts it")
    url, file = str(row["url"]), credential_file(settings, service)
    secret = password(settings, service)
    if as_json:
        print_json({"url": url, "user": USER, "password_file": str(file)})
        return
    out.print(f"[bold]{service}[/]  {url}")
    if service == "mlflow":
        out.print(f"user      {USER}")
    out.print(f"password  {secret if out.is_terminal else f'in {file}'}", soft_wrap=True, markup=False)
    if service == "prefect":
        out.print("its page asks for all of it, with the user before the colon", style="dim")
    if out.is_terminal and not webbrowser.open(url):
        err.print("no browser was found here: open the address in one")
