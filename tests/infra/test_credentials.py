"""Passwords of the local services: who can read them, and which processes get them."""

from __future__ import annotations

import http.server
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import services
from infra.credentials import ALL, VARIABLES, client_environment, ensure_credentials, password, without_credentials
from infra.settings import Settings, load_settings
from stages.store import ConfigError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"HEADWATER_HOME": str(tmp_path / "home")})


def test_passwords_are_random_created_once_and_for_their_owner_alone(settings: Settings) -> None:
    ensure_credentials(settings)
    files = sorted(settings.credentials_folder.iterdir())
    assert len({file.read_text() for file in files}) == len(files) == 3, "no file is left of writing them"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(settings.credentials_folder.stat().st_mode) == 0o700
    before = [password(settings, name) for name in ALL]
    ensure_credentials(settings)
    assert [password(settings, name) for name in ALL] == before
    assert all(len(secret) > 40 for secret in before)


def test_a_password_that_others_can_read_is_refused(settings: Settings) -> None:
    ensure_credentials(settings)
    (settings.credentials_folder / "mlflow").chmod(0o640)
    with pytest.raises(ConfigError, match=r"password of MLflow and has mode 640.*chmod 600"):
        services.environment_of(settings, _service(settings, "mlflow"))


def test_each_service_gets_only_the_passwords_that_it_needs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_credentials(settings)
    for name in VARIABLES:
        monkeypatch.setenv(name, "of the process that starts it")
    given = {
        service.name: {name for name in VARIABLES if name in services.environment_of(settings, service)}
        for service in services.services(settings)
    }
    assert given == {
        "prefect": {"PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"},
        "mlflow": {"MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"},
        "gateway": set(),
        "prefect-worker": {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"},
    }


def test_no_command_line_and_no_setting_that_is_written_down_contains_a_password(settings: Settings) -> None:
    ensure_credentials(settings)
    secrets = [file.read_text().strip().rpartition(":")[2] for file in settings.credentials_folder.iterdir()]
    shown = str([(service.command, service.env) for service in services.services(settings)]) + str(
        settings.environment()
    )
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.parametrize(
    ("status", "words"),
    [(200, "running without a password: an earlier version"), (401, "another password than"), (None, "")],
)
def test_a_running_service_with_another_lock_is_named(settings: Settings, status: int | None, words: str) -> None:
    """None: it asks for the password, and takes the one of the file."""
    ensure_credentials(settings)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status or (200 if self.headers["Authorization"] else 401))
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        service = replace(_service(settings, "prefect"), locked=f"http://127.0.0.1:{server.server_port}/x")
        error = services.lock_error(settings, service)
        server.shutdown()
    assert words in error and bool(words) == bool(error)


def test_without_services_there_are_no_credentials_to_pass_on(settings: Settings) -> None:
    assert client_environment(settings) == {}
    assert without_credentials({"A": "1", "PREFECT_API_AUTH_STRING": "x"}) == {"A": "1"}


def _service(settings: Settings, name: str) -> services.Service:
    return next(service for service in services.services(settings) if service.name == name)
