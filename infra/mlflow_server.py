"""MLflow's server with its own authentication, behind the web guard: `python -m infra.mlflow_server --port 5000 ...`.

It is what `mlflow server --app-name basic-auth --workers 1` runs, in one process instead of two that both import
MLflow. The administrator is `headwater`; its password is the one in the state folder, whatever the database of users
says: a password file that was lost or replaced is in force after a restart. Further users are MLflow's own.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import hmac
import os
from pathlib import Path

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
    return WebGuard(_RefuseWrongPasswords(app, user, password))


class _RefuseWrongPasswords:
    """Answers 401 to the administrator's name with another password, at no cost.

    MLflow hashes what it is given in the process that answers everybody: a few wrong passwords a second would be enough
    to make the owner wait. Other users' passwords it does hash.
    """

    def __init__(self, app: ASGIApp, user: str, password: str):
        self._app, self._user, self._right = app, user, f"{user}:{password}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_wrong(Headers(scope=scope).get("authorization", "")):
            challenge = {"WWW-Authenticate": 'Basic realm="mlflow"'}
            await PlainTextResponse("the password is wrong\n", 401, challenge)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_wrong(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded)
        except ValueError:
            return scheme.lower() == "basic"
        is_administrator = given.partition(b":")[0] == self._user.encode()
        return scheme.lower() == "basic" and is_administrator and not hmac.compare_digest(given, self._right)


if __name__ == "__main__":
    main()
