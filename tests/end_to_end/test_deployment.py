"""`prefect deployment run pretrain/biomed`: from a foreign directory, with parameters, right and wrong ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import BIN, House

STARTED = {"flow_runs": {"start_time": {"is_null_": False}}}
"""Not the runs that the weekly schedule has waiting."""
CUT = re.compile(r"Stopped\s+watching\s+flow\s+run\s+(\S+)\s+before")


def _deployment_run(house: House, tmp_path: Path, *parameters: str) -> tuple[int, str]:
    """Exit status and output, watched to the end. A busy server may cut Prefect's stream (which says so, and leaves the
    run at work): then it is watched again, as the README tells."""
    command = [str(BIN / "prefect"), "deployment", "run", "pretrain/biomed", "--watch"]
    for parameter in parameters:
        command += ["--param", parameter]
    result = house.command(command, check=False, cwd=tmp_path)
    output = result.stdout + result.stderr
    for _ in range(10):
        if not (cut := CUT.search(result.stdout + result.stderr)):
            break
        result = house.command([str(BIN / "prefect"), "flow-run", "watch", cut[1]], check=False, cwd=tmp_path)
        output += result.stdout + result.stderr
    return result.returncode, output


def _api(house: House, path: str, body: dict) -> Any:
    answer = httpx.post(f"http://127.0.0.1:{house.env['HEADWATER_PREFECT_PORT']}/api/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def test_runs_from_any_directory_with_parameters(house: House, tmp_path: Path) -> None:
    code, output = _deployment_run(house, tmp_path, f"overrides={json.dumps(house.overrides)}")
    assert code == 0, output
    assert "Completed" in output
    runs = _api(house, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, **STARTED})
    assert runs[0]["parameters"]["overrides"] == house.overrides
    artifacts = _api(house, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [runs[0]["id"]]}}})
    assert {"corpus", "evaluation", "report", "endpoint", "mlflow-model"} <= {item["key"] for item in artifacts}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("steps=200", "not found on the deployment: 'steps'"),
        ("again=7", "field 'again'. Failure reason: 7 is not of type 'boolean'"),
        ("data=some/folder", "field 'data'. Failure reason: 'some/folder' does not match"),
        ("data=null", "field 'data'. Failure reason: None is not of type 'string'"),
        ("recipe=own/recipe.yaml", "field 'recipe'. Failure reason: 'own/recipe.yaml' does not match"),
        ('overrides="training.steps=200"', "field 'overrides'. Failure reason: 'training.steps=200' is not of type"),
        ('overrides=["training.steps"]', "field 'overrides[0]'. Failure reason: 'training.steps' does not match"),
    ],
)
def test_the_server_refuses_wrong_parameters_before_there_is_a_run(
    house: House, tmp_path: Path, parameter: str, message: str
) -> None:
    before = _api(house, "flow_runs/count", {})
    code, output = _deployment_run(house, tmp_path, parameter)
    assert code != 0, output
    assert message in " ".join(output.split())
    assert _api(house, "flow_runs/count", {}) == before


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("recipe=biomet", "recipe 'biomet' not found"),
        ("data=/no/such/folder", "/no/such/folder"),
        ('overrides=["training.stepz=1"]', "training.stepz: unknown key; did you mean 'steps'?"),
        ('overrides=["training.steps=-5"]', "training.steps: Input should be greater than"),
    ],
)
def test_the_flow_refuses_wrong_parameters_before_any_work(
    house: House, tmp_path: Path, parameter: str, message: str
) -> None:
    code, output = _deployment_run(house, tmp_path, parameter)
    assert code != 0, output
    run = _api(house, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, **STARTED})[0]
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    assert not _api(house, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})


def test_the_deployment_describes_its_parameters(house: House) -> None:
    deployment = _api(house, "deployments/filter", {})[0]
    assert deployment["name"] == "biomed"
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert set(fields) == {"recipe", "data", "evaluation_data", "overrides", "again"}
    assert all(field.get("description") for field in fields.values())
