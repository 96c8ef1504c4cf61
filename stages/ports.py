"""TCP ports of this machine. Standard library only: the doctor imports it before set-up."""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
"""For programs that are given an interface to listen on."""


def free_port() -> int:
    """A loopback port that no process listens on now; the kernel chooses it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listen_error(port: int) -> OSError | None:
    """Why this process cannot listen on a loopback port; None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            return error
    return None
