"""MLflow's server with its own authentication, behind the web guard: `python -m infra.mlflow_server --port 5000 ...`.

It is what `mlflow server --app-name basic-auth --workers 1` runs, in one process instead of two that both import
MLflow. The administrator is `headwater`; its password is the one in the state folder, whatever the database of users
says: a password file that was lost or replaced is in force after a restart. Further users are MLflow's own.
"""

from __future__ import annotations

import argparse
import configparser
import os
from pathlib import Path

import uvicorn

from infra.web_guard import WebGuard

PASSWORD_CACHE_SECONDS = 60
"""How long a password that was right is not hashed again, which takes 50 ms and more a request."""


def main() -> None:
    """Serves experiments, models and artifacts of a folder. The environment has the administrator's password."""
    parser = argparse.ArgumentParser(description="MLflow's server on loopback.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="its databases and artifacts")
    options = parser.parse_args()
    folder = options.folder
    os.environ |= {
        "MLFLOW_AUTH_CONFIG_PATH": str(_write_authentication(folder)),
        "_MLFLOW_SGI_NAME": "uvicorn",  # as `mlflow server` tells its application
    }

    from mlflow.server import (
        ARTIFACT_ROOT_ENV_VAR,
        ARTIFACTS_DESTINATION_ENV_VAR,
        BACKEND_STORE_URI_ENV_VAR,
        REGISTRY_STORE_URI_ENV_VAR,
        SERVE_ARTIFACTS_ENV_VAR,
    )
    from mlflow.server.handlers import initialize_backend_stores

    database, artifacts = f"sqlite:///{folder / 'mlflow.db'}", "mlflow-artifacts:/"
    os.environ |= {
        BACKEND_STORE_URI_ENV_VAR: database,
        REGISTRY_STORE_URI_ENV_VAR: database,
        ARTIFACT_ROOT_ENV_VAR: artifacts,
        ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
        SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    initialize_backend_stores(database, database, artifacts)  # brings the database's tables up to date
    uvicorn.run(_authenticated_app(), host="127.0.0.1", port=options.port, log_level="warning")


def _write_authentication(folder: Path) -> Path:
    """Writes the settings of MLflow's authentication, which has no secrets in it. Returns the file's path."""
    settings = configparser.ConfigParser(interpolation=None)
    settings["mlflow"] = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{folder / 'users.db'}".replace("%", "%%"),
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": str(PASSWORD_CACHE_SECONDS),
    }
    path = folder / "authentication.ini"
    with path.open("w") as file:
        settings.write(file)
    return path


def _authenticated_app() -> WebGuard:
    from mlflow.server.auth import create_app, store

    app = create_app()
    user, password = os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    if not store.authenticate_user(user, password):
        store.update_user(user, password=password, is_admin=True)
    return WebGuard(app)


if __name__ == "__main__":
    main()
