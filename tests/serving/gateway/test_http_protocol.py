"""What clients that send or read slowly, or ambiguously, get on a real socket, and that they delay nobody."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import ServingError
from serving.gateway.http_protocol import RESERVED_FILES, connections_within, raise_file_limit
from serving.record import Deployment
from stages.store import Store
from tests.serving.gateways import Gateway, ask, gateway_thread, wait_for

MAX_CONNECTIONS = 16
HALF_A_HEADER = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    limits = {"max_connections": MAX_CONNECTIONS, "header_timeout_seconds": 1.0, "write_timeout_seconds": 0.5}
    with gateway_thread(Store(folder / "store"), folder / "state", **limits) as found:
        yield found


@pytest.fixture(scope="module")
def served(gateway: Gateway) -> Deployment:
    return gateway.serve(gateway.model(), 1)


def connect(gateway: Gateway, data: bytes = b"", receive_bytes: int | None = None) -> socket.socket:
    """A connection on which `data` was sent."""
    client = socket.socket()
    client.settimeout(30)
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])))
    client.sendall(data)
    return client


def everything(client: socket.socket) -> bytes:
    """All that arrives until the gateway closes the connection."""
    received = b""
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            received += data
    return received


def trickle(client: socket.socket, data: bytes) -> None:
    """Sends the data again and again, faster than any deadline, until the connection is closed."""
    with contextlib.suppress(OSError):
        while True:
            client.sendall(data)
            time.sleep(0.05)


def request(gateway: Gateway, headers: str, body: bytes = b"", path: str = "/v1/completions", host: str = "x") -> bytes:
    """A POST with the key."""
    start = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {gateway.key}\r\n{headers}\r\n"
    return start.encode() + body


def completion(gateway: Gateway, prompt: str) -> bytes:
    body = json.dumps({"model": "toy", "prompt": prompt}).encode()
    return request(gateway, f"Content-Length: {len(body)}\r\n", body)


@pytest.mark.parametrize("sent", [b"", b"P", HALF_A_HEADER])
def test_a_client_that_sends_no_whole_header_is_closed(gateway: Gateway, sent: bytes) -> None:
    assert everything(connect(gateway, sent)) == b""


@pytest.mark.parametrize(
    "sent",
    [
        (HALF_A_HEADER, b"X-Header: a\r\n"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nG", b"E"),  # and one after an answer
        (b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x"),  # a body nobody waits for
    ],
)
def test_a_client_that_trickles_is_closed(gateway: Gateway, sent: tuple[bytes, bytes]) -> None:
    client = connect(gateway, sent[0])
    sender = threading.Thread(target=trickle, args=(client, sent[1]))
    sender.start()
    everything(client)
    sender.join(30)
    assert not sender.is_alive(), "it cannot send any more"


def test_a_body_that_takes_too_long_is_refused(gateway: Gateway, served: Deployment) -> None:
    with gateway.limits(served, body_timeout_seconds=0.2):
        answer = everything(connect(gateway, request(gateway, "Content-Length: 1000\r\n", b"{")))
    assert answer.startswith(b"HTTP/1.1 408") and b"body_timeout" in answer


def test_half_open_connections_delay_nobody(gateway: Gateway, served: Deployment) -> None:
    with contextlib.ExitStack() as stack, gateway.client() as client:
        for _ in range(3 * MAX_CONNECTIONS):
            stack.enter_context(connect(gateway, HALF_A_HEADER))
            assert ask(client, "hello").status_code == 200  # on the same connection: one that works is never closed


def test_a_connection_beyond_the_limit_is_refused_if_all_others_have_requests(
    gateway: Gateway, served: Deployment, tmp_path: Path
) -> None:
    held: list[socket.socket] = []
    for _ in range(
        MAX_CONNECTIONS
    ):  # one after the other: before its header has arrived it could be closed for the next
        held.append(connect(gateway, completion(gateway, f"hold {tmp_path / 'go on'}")))
        wait_for(lambda: gateway.logs().count(f"asked: hold {tmp_path / 'go on'}") == len(held))
    assert everything(connect(gateway)).startswith(b"HTTP/1.1 503")
    (tmp_path / "go on").touch()
    for client in held:
        assert everything(client).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_is_closed(gateway: Gateway, served: Deployment) -> None:
    with gateway.limits(served, max_body_bytes=1 << 25):
        client = connect(gateway, receive_bytes=4096)
        client.sendall(completion(gateway, "x" * (1 << 24)))
        with client, pytest.raises(ConnectionResetError):
            wait_for(lambda: client.send(b"x") == 0, 20)


AMBIGUOUS = {
    "both": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "both, the other way": "transfer-encoding: CHUNKED\r\ncontent-length: 5\r\n",
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n",
    "two encodings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "another encoding": "Transfer-Encoding: gzip, chunked\r\n",
    "identity": "Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
    "a sign": "Content-Length: +5\r\n",
    "digits": f"Content-Length: {'9' * 5000}\r\n",
    "a space": "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_of_ambiguous_length_is_refused_and_the_connection_closed(
    gateway: Gateway, served: Deployment, name: str
) -> None:
    smuggled = (
        b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + gateway.key.encode() + b"\r\n\r\n"
    )
    answer = everything(connect(gateway, request(gateway, AMBIGUOUS[name], smuggled)))
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 501"), answer
    assert b"owned_by" not in answer


@pytest.mark.parametrize("host", ["x/v1/chat/completions?", "x/invocations#", "[", "x:y", "", "a@b/v1/models"])
def test_the_host_header_does_not_choose_the_route(gateway: Gateway, served: Deployment, host: str) -> None:
    body = b'{"model": "toy", "prompt": "hello"}'
    headers = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    answer = everything(connect(gateway, request(gateway, headers, body, host=host)))
    assert answer.startswith(b"HTTP/1.1 200") and b"toy@1 hello" in answer, answer
    missing = everything(connect(gateway, request(gateway, "Connection: close\r\n", path="/none", host=host)))
    assert missing.startswith(b"HTTP/1.1 404") and b"/none" in missing
    slash = everything(connect(gateway, request(gateway, headers, body, path="/v1/completions/", host=host)))
    assert slash.startswith(b"HTTP/1.1 404") and b"location" not in slash.lower()


def test_a_websocket_is_answered_as_any_request(gateway: Gateway) -> None:
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    answer = everything(connect(gateway, f"GET /none HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode()))
    assert answer.startswith(b"HTTP/1.1 404") and b'"not_found"' in answer


def test_connections_fit_into_the_limit_of_open_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 512), before[1]))
    try:
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert connections_within(65536, 1000) == 1000
    assert connections_within(1024, 1000) == (1024 - RESERVED_FILES) // 2
    with pytest.raises(ServingError, match="ulimit"):
        connections_within(RESERVED_FILES + 20, 1000)
