"""Ports of tests that run side by side."""

from __future__ import annotations

import socket

import pytest

from tests.support import FIRST_PORT, PORTS_A_WORKER, free_port


def test_ports_are_given_once_and_to_one_process_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [free_port() for _ in range(100)]
    assert len(set(mine)) == 100
    for worker in (0, 3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
        first = FIRST_PORT + worker * PORTS_A_WORKER
        assert all(first <= free_port() < first + PORTS_A_WORKER for _ in range(100))


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port + 1))
        taken.listen()
        assert port + 1 not in [free_port() for _ in range(3)]
