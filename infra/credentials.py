"""Passwords of the local Prefect and MLflow, each in a file that only its owner can read, and where clients find them.

| file in the state folder | what it locks |
|---|---|
| credentials/prefect | the Prefect server: `headwater:PASSWORD`, as its UI and clients ask for it |
| credentials/mlflow | the MLflow server, for the user `headwater`, its administrator |
| credentials/mlflow-session | signs the forms of MLflow's pages |

They reach programs as environment variables that the clients of Prefect and MLflow read by themselves; the `prefect`
command of a fresh shell has the profile that `headwater up` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from infra.settings import Settings
from stages.store.private_files import ensure_secret, read_secret

USER = "headwater"

Credential = Literal["prefect", "mlflow"]
ALL: tuple[Credential, ...] = ("prefect", "mlflow")
_SESSION = "mlflow-session"
_WHAT = {"prefect": "password of Prefect", "mlflow": "password of MLflow", _SESSION: "key of MLflow's forms"}
VARIABLES = (
    *("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    *("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"),
)
"""Every variable that holds a credential: a process that needs none is started without them."""


def ensure_credentials(settings: Settings) -> None:
    """Creates the passwords that are missing.

    Raises:
        ConfigError: other users can read one that exists.
    """
    for name in (*ALL, _SESSION):
        ensure_secret(credential_file(settings, name), _WHAT[name], f"{USER}:" if name == "prefect" else "")


def credential_file(settings: Settings, name: str) -> Path:
    """The file of a service's password."""
    return settings.credentials_folder / name


def password(settings: Settings, name: str) -> str:
    """The password of a service.

    Raises:
        ConfigError: there is none yet, or other users can read it.
    """
    return read_secret(credential_file(settings, name), _WHAT[name])


def client_environment(settings: Settings, names: Iterable[Credential] = ALL) -> dict[str, str]:
    """The variables by which clients of the services authenticate; of a service without a password: none.

    Raises:
        ConfigError: other users can read a password.
    """
    found: dict[str, str] = {}
    for name in names:
        if not os.path.lexists(credential_file(settings, name)):
            continue  # no service has been started here
        if name == "prefect":
            found["PREFECT_API_AUTH_STRING"] = password(settings, name)
        else:
            found |= {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password(settings, "mlflow")}
    return found


def client_credentials(settings: Settings, name: str) -> str:
    """`user:password` for a service."""
    secret = password(settings, name)
    return secret if name == "prefect" else f"{USER}:{secret}"


def prefect_server_environment(settings: Settings) -> dict[str, str]:
    """What the Prefect server itself needs."""
    return {"PREFECT_SERVER_API_AUTH_STRING": password(settings, "prefect")}


def mlflow_server_environment(settings: Settings) -> dict[str, str]:
    """What the MLflow server itself needs."""
    return {
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password(settings, "mlflow"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": password(settings, _SESSION),
    }


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that hold no credential of these services."""
    return {name: value for name, value in environ.items() if name not in VARIABLES}
