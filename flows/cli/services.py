"""`headwater up`, `headwater down` and `headwater status`: the local services."""

from __future__ import annotations

import os
import sys
from typing import Any

from flows.cli.console import Json, err, load, out, print_json, show


def up(as_json: Json = False) -> None:
    """Start the local services and register the deployments; services that run already are not restarted."""
    from infra.services import status as service_status

    settings = load()
    start_services(settings, None, always_register=True)
    if as_json:
        print_json({row["service"]: row["url"] for row in service_status(settings)})
        return
    for row in service_status(settings):
        if row["url"]:
            out.print(f"[bold]{row['service']:<10}[/] {row['url']}")


def down(as_json: Json = False) -> None:
    """Stop all services, with all their processes."""
    from flows.prefect_setup import forget_profile
    from infra.services import down as stop_services

    settings = load()
    ended = stop_services(settings, lambda line: err.print(line))
    forget_profile()
    if as_json:
        print_json({"stopped": ended})
    elif not ended:
        err.print("nothing was running")


def status(as_json: Json = False) -> None:
    """Show the services, the served model, and the refs in the store."""
    from infra.services import status as service_status
    from serving.record import read_record
    from stages.store import Store, list_refs

    settings = load()
    store = Store(settings.store)
    rows = service_status(settings)
    if not as_json:  # first, since the store may be unreachable
        columns = ("service", "running", "healthy", "pid", "url")
        show("Services", [{column: row[column] for column in columns} for row in rows], False)
        out.print(f"[bold]store[/]  {store.url}")
    record, refs = read_record(store), list_refs(store)
    served = record.stable.model_dump(mode="json") if record.stable else None
    if as_json:
        print_json({"services": rows, "served": served, "refs": refs, "store": store.url})
        return
    if served:
        out.print(f"[bold]served[/] {served['name']} version {served['version']}, model/{served['model_digest'][:12]}")
    if refs:
        show("Refs", [{"ref": name, "digest": digest[:12]} for name, digest in refs.items()], False)


def start_services(settings: Any, wait_for: set[str] | None, always_register: bool = False) -> dict[str, float]:
    """Starts the services that do not run; registers the deployments if Prefect was started.

    Args:
        wait_for: services to wait for; None: all.
        always_register: register the deployments also if Prefect was running already.

    Returns:
        Seconds until each service answered.
    """
    from flows.prefect_setup import register, use_profile
    from infra.credentials import client_environment, ensure_credentials
    from infra.services import service_process
    from infra.services import up as start
    from serving.gateway.keys import ensure_key

    prefect_starts = service_process(settings, "prefect").find() is None
    ensure_credentials(settings)
    os.environ.update(client_environment(settings))  # before Prefect and MLflow are imported
    key, created = ensure_key(settings.api_key_file)
    if created:
        shown = f" (shown once): {key}" if sys.stderr.isatty() else ""  # logs and pipes are kept, and read by others
        err.print(f"API key of the endpoint, stored in {settings.api_key_file}{shown}", soft_wrap=True)
    seconds = start(settings, wait_for=wait_for, echo=lambda line: err.print(line, style="dim"))
    if prefect_starts or always_register:
        register(settings)
        if not use_profile(settings):
            err.print(
                "your own Prefect profile stays active; for this server: `prefect profile use headwater`, or "
                "PREFECT_PROFILE=headwater before a command"
            )
    return seconds
