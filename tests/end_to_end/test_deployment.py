"""`prefect deployment run pretrain/biomed`: from a foreign directory, with parameters, right and wrong ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.house import House
from tests.end_to_end.prefect_client import Prefect, WatchedRun, deployment_run

REFUSED_RUNS = Path(__file__).with_name("refused_runs.py")


def test_runs_from_any_directory_with_parameters(house: House, prefect: Prefect, watched_run: WatchedRun) -> None:
    """The command's whole path: Prefect's own, its server, its worker, the flow, and the final state by `--watch`."""
    assert watched_run.code == 0, watched_run.output
    assert "Completed" in watched_run.output and "Traceback" not in watched_run.output
    run = prefect.run(watched_run.id)
    assert run["parameters"]["overrides"] == house.overrides
    assert {"corpus", "evaluation", "report", "endpoint", "mlflow-model"} <= set(prefect.artifacts(run["id"]))


@pytest.mark.full
def test_a_failed_run_is_reported_by_the_command(house: House, prefect: Prefect, tmp_path: Path) -> None:
    """The command's exit status where the flow refuses in the worker's process; the tests below have the refusals."""
    code, output = deployment_run(house, tmp_path, "recipe=biomet")
    assert code != 0, output
    run = prefect.last_started()
    assert run["state"]["type"] == "FAILED"
    assert "recipe 'biomet' not found" in run["state"]["message"]


def test_the_command_refuses_an_unknown_parameter_before_it_creates_a_run(
    house: House, prefect: Prefect, tmp_path: Path
) -> None:
    before = prefect.post("/flow_runs/count", {})
    code, output = deployment_run(house, tmp_path, "steps=200")
    assert code != 0, output
    assert "not found on the deployment: 'steps'" in " ".join(output.split())
    assert prefect.post("/flow_runs/count", {}) == before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"force_new_run": 7}, "field 'force_new_run'. Failure reason: 7 is not of type 'boolean'"),
        ({"data": "some/folder"}, "field 'data'. Failure reason: 'some/folder' does not match"),
        ({"data": None}, "field 'data'. Failure reason: None is not of type 'string'"),
        ({"recipe": "own/recipe.yaml"}, "field 'recipe'. Failure reason: 'own/recipe.yaml' does not match"),
        ({"overrides": "training.steps=200"}, "field 'overrides'. Failure reason: 'training.steps=200' is not of type"),
        ({"overrides": ["training.steps"]}, "field 'overrides[0]'. Failure reason: 'training.steps' does not match"),
    ],
    ids=str,
)
def test_the_server_refuses_wrong_parameters_before_it_creates_a_run(
    prefect: Prefect, parameters: dict[str, Any], message: str
) -> None:
    """As the command, the UI and every other client ask for a run."""
    before = prefect.post("/flow_runs/count", {})
    with pytest.raises(httpx.HTTPStatusError) as refused:
        prefect.post(f"/deployments/{prefect.deployment['id']}/create_flow_run", {"parameters": parameters})
    assert refused.value.response.status_code == 409
    assert message in refused.value.response.json()["detail"]
    assert prefect.post("/flow_runs/count", {}) == before


def test_the_flow_refuses_wrong_parameters_before_any_work(house: House, prefect: Prefect) -> None:
    """Parameters that the schema accepts; one process runs the flow for all of them, as a worker's would."""
    refusals = [
        ({"recipe": "biomet"}, "recipe 'biomet' not found"),
        ({"data": "/no/such/folder"}, "/no/such/folder"),
        ({"overrides": ["training.stepz=1"]}, "training.stepz: unknown key; did you mean 'steps'?"),
        ({"overrides": ["training.steps=-5"]}, "training.steps: Input should be greater than"),
    ]
    answered = house.command([sys.executable, str(REFUSED_RUNS), json.dumps([given for given, _ in refusals])])
    runs = json.loads(answered.stdout)
    assert len(runs) == len(refusals)
    for run, (given, message) in zip(runs, refusals, strict=True):
        state = prefect.run(run)["state"]
        assert state["type"] == "FAILED", given
        assert message in state["message"]
        assert not prefect.task_runs(run), given


def test_the_deployment_describes_its_parameters(prefect: Prefect) -> None:
    deployment = prefect.deployment
    assert deployment["name"] == "biomed"
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert set(fields) == {"recipe", "data", "evaluation_data", "overrides", "force_new_run"}
    assert all(field.get("description") for field in fields.values())
