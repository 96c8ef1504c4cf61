"""Prefect artifacts on a run's page: progress, tables, links, the report.

If the server does not answer they are left out with a warning, and the run continues; their content is in the store and
in MLflow as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any
from uuid import UUID

import httpx
from prefect import get_run_logger, runtime
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows.present import text


def show_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """A table; `rows` map column to value."""
    readable = [{name.replace("_", " "): text(value) for name, value in row.items()} for row in rows]
    _or_warn(key, lambda: create_table_artifact(readable, key=key, description=description))


def show_link(key: str, url: str, label: str) -> None:
    """A link with its text."""
    _or_warn(key, lambda: create_link_artifact(url, label, key=key, description=label))


def show_report(markdown: str, description: str) -> None:
    """The run's report, in Markdown."""
    _or_warn("report", lambda: create_markdown_artifact(markdown, key="report", description=description))


def show_done(stage: str) -> None:
    """A full progress bar for a cached stage, so that the page shows every stage."""
    _or_warn(stage, lambda: create_progress_artifact(100.0, key=_bar(stage), description=f"{stage}: cached"))


def remove_duplicates() -> None:
    """Removes duplicate artifacts of this run.

    A slow server may have some twice: Prefect's client repeats a request whose answer did not come, and artifacts have
    no id by which the server could recognise a repeated request.
    """
    _or_warn("the run without duplicate artifacts", _remove_duplicates)


class Progress:
    """The progress bar of a running stage; raises the client's errors if the server does not answer."""

    def __init__(self, stage: str):
        self._stage = stage
        self._id: UUID | None = None
        # The client reads run and task from the context; events arrive in a thread that has neither.
        self._context = copy_context()

    def update(self, percent: float, note: str = "") -> None:
        """Shows `percent` (0 to 100), and a note; the first call creates the bar."""
        description = f"{self._stage}: {note or 'share done'}"
        if self._id is None:
            self._id = self._context.run(
                create_progress_artifact, percent, key=_bar(self._stage), description=description
            )
        else:
            update_progress_artifact(self._id, percent, description)


def _remove_duplicates() -> None:
    of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(runtime.flow_run.id)]))
    with get_client(sync_client=True) as client:
        kept: dict[str | None, Artifact] = {}
        for found in client.read_artifacts(artifact_filter=of_this_run):
            other = kept.setdefault(found.key, found)
            if other is found:
                continue
            kept[found.key], duplicate = (found, other) if _percent(found) > _percent(other) else (other, found)
            with suppress(ObjectNotFound):  # an earlier request removed it, and its answer was lost
                client.delete_artifact(duplicate.id)


def _percent(artifact: Artifact) -> float:
    """A bar's progress: of two duplicates, only one is updated. Other artifacts never change; any of them may stay."""
    return float(str(artifact.data)) if artifact.type == "progress" else 0.0


def _bar(stage: str) -> str:
    return f"{stage}-progress"


def _or_warn(what: str, show: Callable[[], object]) -> None:
    try:
        show()
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("cannot show %s in Prefect: %s", what, error)
