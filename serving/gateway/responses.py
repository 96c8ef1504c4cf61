"""Errors in the format of OpenAI's API."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RefusedError(Exception):
    """A request is answered with an error: HTTP status, message, error code, and the invalid field if there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    def body(self) -> dict[str, object]:
        """The response body, in OpenAI's format."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


def unavailable(message: str, retry_after_seconds: float) -> RefusedError:
    """503 with Retry-After: no engine can answer now."""
    wait = str(max(1, math.ceil(retry_after_seconds)))
    return RefusedError(503, message, "model_not_ready", headers={"Retry-After": wait})
