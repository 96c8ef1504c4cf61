"""`prefect deployment run pretrain/biomed`: from a foreign directory, with parameters, right and wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import BIN, House


def _deployment_run(house: House, tmp_path: Path, *parameters: str) -> tuple[int, str]:
    command = [str(BIN / "prefect"), "deployment", "run", "pretrain/biomed", "--watch"]
    for parameter in parameters:
        command += ["--param", parameter]
    result = house.command(command, check=False, cwd=tmp_path)
    return result.returncode, result.stdout + result.stderr


def _api(house: House, path: str, body: dict) -> list[dict]:
    answer = httpx.post(f"http://127.0.0.1:{house.env['HEADWATER_PREFECT_PORT']}/api/{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def test_runs_from_any_directory_with_parameters(house: House, tmp_path: Path) -> None:
    code, output = _deployment_run(house, tmp_path, f"overrides={json.dumps(house.overrides)}")
    assert code == 0, output
    assert "Completed" in output
    runs = _api(house, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert runs[0]["parameters"]["overrides"] == house.overrides
    artifacts = _api(house, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [runs[0]["id"]]}}})
    assert {"corpus", "evaluation", "report", "endpoint", "mlflow-model"} <= {item["key"] for item in artifacts}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("data=some/folder", "data: 'some/folder' is a relative path"),
        ("recipe=biomet", "did you mean 'biomed'"),
        ('overrides=["training.stepz=1"]', "did you mean 'steps'"),
    ],
)
def test_wrong_parameters_are_refused_before_any_work(
    house: House, tmp_path: Path, parameter: str, message: str
) -> None:
    code, output = _deployment_run(house, tmp_path, parameter)
    assert code != 0, output
    run = _api(house, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    assert not _api(house, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})


def test_the_deployment_has_a_form_and_a_weekly_schedule(house: House) -> None:
    deployment = _api(house, "deployments/filter", {})[0]
    assert deployment["name"] == "biomed"
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 3 * * 0"]
    fields = deployment["parameter_openapi_schema"]["properties"]
    assert set(fields) == {"recipe", "data", "evaluation_data", "overrides", "again"}
    assert all(field.get("description") for field in fields.values())
