"""Ports that are free, and why others are not."""

from __future__ import annotations

import errno
import socket

from stages.ports import LOOPBACK, free_port, listen_error


def test_a_free_port_can_be_listened_on_and_a_taken_one_cannot() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        taken = listen_error(server.getsockname()[1])
        assert taken is not None and taken.errno == errno.EADDRINUSE
        assert free_port() != server.getsockname()[1]
