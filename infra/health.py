"""Does a service of this machine answer? Standard library only: the doctor asks before set-up too."""

from __future__ import annotations

import urllib.error
import urllib.request


def answers(url: str) -> bool:
    """True when the route answers 200 within two seconds. No proxy is asked: it is a loopback address."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
