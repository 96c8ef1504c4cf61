"""The guard in front of Prefect and MLflow: who may send a request, seen by a real server and by Starlette's client."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from infra.web_guard import WebGuard

HOST = "127.0.0.1:4200"


async def page(request: object) -> PlainTextResponse:
    return PlainTextResponse("inside", headers={"content-security-policy": "default-src 'self'"})


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("inside")
    await websocket.close()


APP = Starlette(routes=[Route("/{rest:path}", page, methods=["GET", "POST"]), WebSocketRoute("/{rest:path}", socket)])


@pytest.fixture
def client() -> TestClient:
    return TestClient(WebGuard(APP), base_url=f"http://{HOST}")


@pytest.mark.parametrize("host", [HOST, "localhost:4200", "LOCALHOST:14200", "[::1]:4200", "127.0.0.1", "localhost"])
def test_this_machine_is_let_in_under_its_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).text == "inside"
    assert client.post("/", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:4200", "127.0.0.1.evil.example", "localhost.evil.example:4200", "127.0.0.1@evil",
        "evil.example/127.0.0.1", "127.0.0.2:4200", "0.0.0.0:4200", "10.0.0.7:4200", "127.0.0.1:", "127.0.0.1:x",
        "127.0.0.1:123456", "127.0.0.1 ", "127.0.0.1:4200\\x", "2130706433", "[::ffff:127.0.0.1]", "",
    ],
)  # fmt: skip
def test_another_host_is_refused_on_every_route(client: TestClient, host: str) -> None:
    for path in ("/", "/api/health", "/static/logo.png", "/api//../x"):
        answer = client.get(path, headers={"host": host})
        assert (answer.status_code, "inside" in answer.text) == (403, False)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/events", headers={"host": host}):
        raise AssertionError("connected")


def test_a_request_without_a_host_or_with_two_is_refused(client: TestClient) -> None:
    assert client.get("/", headers=[("host", HOST), ("host", "evil.example")]).status_code == 403  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:4200", "http://127.0.0.1",
        "file://", "chrome-extension://abc", f"ftp://{HOST}", f"http://{HOST}.evil.example", f"http://{HOST}/", "",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(client: TestClient, origin: str) -> None:
    headers = {"origin": origin}
    assert client.post("/api/deployments/filter", headers=headers).status_code == 403
    assert client.get("/", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/events", headers={"host": HOST, **headers}):
        raise AssertionError("connected")


def test_pages_of_the_service_itself_are_let_in(client: TestClient) -> None:
    headers = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
    assert client.post("/", headers=headers).text == "inside"
    with client.websocket_connect("/events", headers={"host": HOST, **headers}) as connection:
        assert connection.receive_text() == "inside"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_of_another_site_only_a_link_that_a_person_follows_is_let_in(client: TestClient, site: str) -> None:
    link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/", headers=link).status_code == 403, "a form"
    for other in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}):
        assert client.get("/", headers=link | other).status_code == 403


def test_no_other_page_may_frame_what_is_answered_and_its_own_pages_send_nothing_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    own, added = answer.headers.get_list("content-security-policy")
    assert own == "default-src 'self'", "the application's own policy stays in force"
    directives = dict(part.strip().split(" ", 1) for part in added.split(";"))
    assert directives["frame-ancestors"] == "'self'" and "connect-src" not in directives
    assert not [source for source in " ".join(directives.values()).split() if "." in source or source == "*"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
