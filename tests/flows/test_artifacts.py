"""A run's artifacts in Prefect, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect import flow, runtime
from prefect.artifacts import create_progress_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows.artifacts import Progress, remove_duplicates, show_table


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def shown(run: str) -> list[tuple[str, object]]:
    with get_client(sync_client=True) as client:
        return sorted((item.key, item.data) for item in client.read_artifacts() if str(item.flow_run_id) == run)


@pytest.mark.parametrize("repeated_first", [True, False])
def test_an_artifact_that_a_retried_request_created_twice_is_shown_once(repeated_first: bool):
    rows = [{"documents": "3"}]

    @flow
    def other() -> str:
        create_progress_artifact(7.0, key="training-progress")
        return str(runtime.flow_run.id)

    @flow
    def run() -> str:
        if repeated_first:
            create_progress_artifact(10.0, key="training-progress")
        bar = Progress("training")
        bar.update(10.0)
        if not repeated_first:
            create_progress_artifact(10.0, key="training-progress")
        show_table("corpus", rows, "documents")
        create_table_artifact(rows, key="corpus")
        create_progress_artifact(50.0, key="model-progress")
        bar.update(100.0)
        remove_duplicates()
        remove_duplicates()
        return str(runtime.flow_run.id)

    beside, mine = other(), run()
    assert [key for key, _ in shown(mine)] == ["corpus", "model-progress", "training-progress"]
    assert [float(str(data)) for key, data in shown(mine) if key != "corpus"] == [50.0, 100.0]
    assert [key for key, _ in shown(beside)] == ["training-progress"], "another run's page is its own"
