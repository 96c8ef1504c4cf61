"""Health checks of services on this machine. Standard library only: the doctor uses them before set-up too."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request

_HEALTH_TIMEOUT_SECONDS, _TIMEOUT_SECONDS = 2.0, 5.0


def is_healthy(url: str) -> bool:
    """True if the URL answers 200 within two seconds."""
    return answer_status(url, timeout_seconds=_HEALTH_TIMEOUT_SECONDS) == 200


def answer_status(url: str, credentials: str = "", timeout_seconds: float = _TIMEOUT_SECONDS) -> int:
    """The status of the answer to a GET; 0 if there is none. Proxies are bypassed: it is a loopback address.

    Args:
        credentials: `user:password`, for Basic authentication.
    """
    request = urllib.request.Request(url)
    if credentials:
        request.add_header("Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_seconds) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (urllib.error.URLError, OSError):
        return 0
