"""Settings come from the environment and are checked where they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.settings import NO_TELEMETRY, load_settings
from stages.store import ConfigError


def test_defaults_are_in_the_repository() -> None:
    settings = load_settings({})
    assert settings.home.name == ".headwater"
    assert settings.store == str(settings.home / "store")
    assert settings.prefect_api_url == "http://127.0.0.1:4200/api"


def test_environment_variables_override_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(
        {"HEADWATER_HOME": str(tmp_path), "HEADWATER_STORE": "s3://bucket/store", "HEADWATER_MLFLOW_PORT": "5999"}
    )
    assert settings.store == "s3://bucket/store"
    assert settings.mlflow_url == "http://127.0.0.1:5999"
    assert load_settings(settings.environment()) == settings, "subprocesses get the same settings"


@pytest.mark.parametrize("value", ["0", "65536", "x", "-1"])
def test_an_invalid_port_is_refused_with_its_variable(value: str) -> None:
    with pytest.raises(ConfigError, match=f"HEADWATER_GATEWAY_PORT: '{value}'"):
        load_settings({"HEADWATER_GATEWAY_PORT": value})


def test_a_relative_home_is_refused() -> None:
    with pytest.raises(ConfigError, match="HEADWATER_HOME"):
        load_settings({"HEADWATER_HOME": "state"})


def test_telemetry_and_downloads_are_off(tmp_path: Path) -> None:
    environment = load_settings({"HEADWATER_HOME": str(tmp_path)}).environment()
    assert NO_TELEMETRY.items() <= environment.items()
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
