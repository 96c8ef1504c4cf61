"""What a run shows on its page in Prefect: progress, tables, links, the report.

They are for people who watch. When the server is away they are left out with a warning, and the work goes on; what they
say is kept in the store and in MLflow as well.
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
    """A table; `rows` are its lines by column."""
    readable = [{name.replace("_", " "): text(value) for name, value in row.items()} for row in rows]
    _unless_away(key, lambda: create_table_artifact(readable, key=key, description=description))


def show_link(key: str, url: str, words: str) -> None:
    """An address to open, and the words to click on."""
    _unless_away(key, lambda: create_link_artifact(url, words, key=key, description=words))


def show_report(markdown: str, description: str) -> None:
    """The run's report, in Markdown."""
    _unless_away("report", lambda: create_markdown_artifact(markdown, key="report", description=description))


def show_done(stage: str) -> None:
    """A full bar for a stage that was there already, so that the page shows every stage."""
    _unless_away(stage, lambda: create_progress_artifact(100.0, key=_bar(stage), description=f"{stage}: made before"))


def drop_repeats() -> None:
    """Leaves one of each on the page of this run.

    A server that was slow to answer has some twice: Prefect's client repeats a request whose answer did not come, and
    an artifact has no name that would tell the server that it has it already.
    """
    _unless_away("the run without repetitions", _drop_repeats)


class Progress:
    """The bar of one stage that is being made; raises what the client raises when the server is away."""

    def __init__(self, stage: str):
        self._stage = stage
        self._id: UUID | None = None
        # Of which run and task it is, the client reads from here; events arrive in a thread that knows neither.
        self._context = copy_context()

    def update(self, percent: float, note: str = "") -> None:
        """Shows `percent` (0 to 100), and a note in words; the bar is made at the first call."""
        description = f"{self._stage}: {note or 'share done'}"
        if self._id is None:
            self._id = self._context.run(
                create_progress_artifact, percent, key=_bar(self._stage), description=description
            )
        else:
            update_progress_artifact(self._id, percent, description)


def _drop_repeats() -> None:
    of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(runtime.flow_run.id)]))
    with get_client(sync_client=True) as client:
        kept: dict[str | None, Artifact] = {}
        for found in client.read_artifacts(artifact_filter=of_this_run):
            other = kept.setdefault(found.key, found)
            if other is found:
                continue
            kept[found.key], repeated = (found, other) if _percent(found) > _percent(other) else (other, found)
            with suppress(ObjectNotFound):  # removed already by a request whose answer did not come
                client.delete_artifact(repeated.id)


def _percent(artifact: Artifact) -> float:
    """How far a bar has come: of two, only one is moved. Other artifacts never change, any of them will do."""
    return float(str(artifact.data)) if artifact.type == "progress" else 0.0


def _bar(stage: str) -> str:
    return f"{stage}-progress"


def _unless_away(what: str, show: Callable[[], object]) -> None:
    try:
        show()
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        get_run_logger().warning("%s is not shown in Prefect: %s", what, error)
