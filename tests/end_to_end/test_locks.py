"""What a hostile page, another user of the machine and a stranger get from an installation that runs: nothing."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser

from infra.doctor.processes import is_loopback
from tests.end_to_end.browser import open_prefect
from tests.end_to_end.house import BIN, House, processes_of
from tests.end_to_end.prefect_client import Prefect, WatchedRun
from tests.listeners import FOREIGN, Listener, answered, listeners
from tests.secrets import find_secrets

OPEN = ("/health", "/health/live", "/api/health", "/api/ready")
"""Routes that say without a password whether a service runs; not to pages of other origins, but for the gateway's."""


@pytest.fixture(scope="module")
def open_ports(house: House) -> list[Listener]:
    """Every listener of the installation while it serves a model."""
    roots = [psutil.Process(pid) for pid in processes_of(house.folder)]
    family = {process.pid: process for root in roots for process in (root, *root.children(recursive=True))}
    return listeners(family.values())


def test_nothing_listens_where_other_machines_reach_it(house: House, open_ports: list[Listener]) -> None:
    assert not [port for port in open_ports if not is_loopback(port.ip)]
    names = ("PREFECT", "MLFLOW", "GATEWAY")
    assert {int(house.env[f"HEADWATER_{name}_PORT"]) for name in names} < {port.port for port in open_ports}


@pytest.mark.parametrize(
    "headers",
    [{}, FOREIGN, {"Host": "evil.example"}, {"Origin": "null"}, {"Authorization": "Basic YWRtaW46cGFzc3dvcmQxMjM0"}],
    ids=["without a password", "of another origin", "of another host", "of a file", "MLflow's old default password"],
)
def test_every_listener_refuses_requests_without_its_password(
    house: House, open_ports: list[Listener], headers: dict[str, str]
) -> None:
    entered = answered(open_ports, headers)
    pages = {f"{house.env['HEADWATER_PREFECT_PORT']} GET /: 200", f"{house.env['HEADWATER_PREFECT_PORT']} GET /: 307"}
    if headers.keys() & {"Host", "Origin"}:
        assert entered == []
    else:
        assert set(entered) <= pages, "files of Prefect's pages are public"


def test_the_services_answer_with_their_passwords(house: House) -> None:
    for url, user in ((f"http://127.0.0.1:{house.env['HEADWATER_PREFECT_PORT']}/api", house.prefect_auth),):
        name, _, password = user.partition(":")
        assert httpx.post(f"{url}/deployments/filter", json={}, auth=(name, password), trust_env=False).is_success
    found = httpx.post(
        f"{house.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 1}, trust_env=False
    )
    assert found.is_success


def test_open_names_the_way_in_and_prints_a_password_to_no_pipe(house: House) -> None:
    for service, secret in (("prefect", house.prefect_auth), ("mlflow", httpx.URL(house.mlflow_url).password)):
        shown = house.headwater("open", service).stdout
        assert f"credentials/{service}" in shown and secret not in shown
        found = json.loads(house.headwater("open", service, "--json").stdout)
        assert Path(found["password_file"]).read_text().strip() == secret


_PAGE_MILLISECONDS = 2000
"""For a page to ask for all that it asks for."""
HOSTILE = """<!doctype html><body><script>
const port = Number(location.search.slice(1)), base = `http://127.0.0.1:${port}`
async function attempt(name, action) {
  try { const answer = await action(); return [name, answer] } catch (error) { return [name, "refused"] }
}
const read = (path, options) => async () => {
  const answer = await fetch(base + path, {credentials: "include", ...options})
  return `${answer.type} ${answer.status} ${(await answer.text()).slice(0, 40)}`
}
const socket = path => () => new Promise((resolve, reject) => {
  const connection = new WebSocket(`ws://127.0.0.1:${port}${path}`, "prefect")
  connection.onopen = () => resolve("open"); connection.onerror = reject
})
window.attempts = async () => Object.fromEntries(await Promise.all([
  attempt("read", read("/api/deployments/filter", {method: "POST", body: "{}"})),
  attempt("read with JSON", read("/api/admin/version", {headers: {"Content-Type": "application/json"}})),
  attempt("list experiments", read("/ajax-api/2.0/mlflow/experiments/search?max_results=1", {})),
  attempt("models", read("/v1/models", {})),
  attempt("write blind", async () => {
    const body = new Blob([JSON.stringify({name: "planted"})])
    return (await fetch(base + "/api/flows/", {method: "POST", mode: "no-cors", credentials: "include", body})).type
  }),
  attempt("write MLflow blind", async () => {
    const body = new Blob([JSON.stringify({name: "planted"})])
    const url = base + "/ajax-api/2.0/mlflow/experiments/create"
    return (await fetch(url, {method: "POST", mode: "no-cors", credentials: "include", body})).type
  }),
  attempt("events", socket("/api/events/out")),
  attempt("logs", socket("/api/logs/out")),
]))
</script></body>"""
"""A page that tries what any page may: requests with the credentials that the browser has, some of them blind."""


@pytest.fixture(scope="module")
def hostile_origin() -> Iterator[str]:
    """A web server of somebody else on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(HOSTILE.encode())

        def log_message(self, *arguments: Any) -> None:
            """Nothing: the test reads what the page found."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_a_hostile_page_reads_and_changes_nothing_although_the_person_is_logged_in(
    browser: Browser, house: House, prefect: Prefect, hostile_origin: str, host: str
) -> None:
    """In a real browser that has both passwords: MLflow's credentials are sent with every request to it."""
    password = httpx.URL(house.mlflow_url).password
    context = browser.new_context(http_credentials={"username": "headwater", "password": password})
    page = context.new_page()
    open_prefect(page, prefect)
    page.goto(f"http://127.0.0.1:{house.env['HEADWATER_MLFLOW_PORT']}/")
    flows = len(prefect.post("/flows/filter", {}))
    experiments = _experiments(house)
    found = {}
    for name in ("PREFECT", "MLFLOW", "GATEWAY"):
        port = house.env[f"HEADWATER_{name}_PORT"]
        page.goto(f"http://{host}:{hostile_origin.partition(':')[2]}/?{port}")
        found[name] = page.evaluate("attempts()")
    context.close()
    refused = {what for attempts in found.values() for what in attempts.values()}
    assert refused <= {"refused", "opaque"}, found
    assert len(prefect.post("/flows/filter", {})) == flows
    assert _experiments(house) == experiments


def test_a_name_that_resolves_to_this_machine_opens_no_page(browser: Browser, house: House) -> None:
    """DNS rebinding: the page's own name becomes 127.0.0.1, so its requests are of the same origin."""
    for name in ("PREFECT", "MLFLOW"):
        page = browser.new_page()
        answer = page.goto(f"http://evil.example:{house.env[f'HEADWATER_{name}_PORT']}/")
        assert answer is not None and answer.status == 403
        page.close()


def test_the_pages_themselves_ask_nobody_else(browser: Browser, house: House, prefect: Prefect) -> None:
    """Prefect's page asks an analytics service for its settings, whatever the server's setting says."""
    hosts: set[str] = set()
    blocked: list[str] = []
    credentials = {"username": "headwater", "password": str(httpx.URL(house.mlflow_url).password)}
    context = browser.new_context(http_credentials=credentials)
    page = context.new_page()
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
    page.on("console", lambda line: blocked.append(line.text) if "Content Security Policy" in line.text else None)
    open_prefect(page, prefect)
    page.get_by_role("link", name="Runs").first.click()
    page.wait_for_timeout(_PAGE_MILLISECONDS)  # it never stops asking its own server
    page.goto(f"http://127.0.0.1:{house.env['HEADWATER_MLFLOW_PORT']}/#/models")
    page.wait_for_timeout(_PAGE_MILLISECONDS)
    context.close()
    assert hosts <= {"127.0.0.1", ""}, "data: and blob: have no host"
    assert not [line for line in blocked if "127.0.0.1" in line.partition("violates")[0]], "nothing of their own"


def test_nobody_else_can_read_what_a_run_leaves(house: House, watched_run: WatchedRun) -> None:
    command = ["find", str(house.folder / "home"), "!", "-type", "l", "-perm", "/077"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


def test_a_run_leaves_no_password_but_in_its_own_file(house: House, watched_run: WatchedRun) -> None:
    home = house.folder / "home"
    own = [home / "api-key", *sorted((home / "credentials").iterdir())]
    secrets = [path.read_text().strip().rpartition(":")[2] for path in own]
    found = find_secrets(home, secrets)
    assert sorted(found) == sorted(f"{path.relative_to(home)}: secret {n} as it is" for n, path in enumerate(own))
    assert oct(os.stat(house.folder / "profiles.toml").st_mode & 0o777) == "0o600"


def test_the_command_line_of_prefect_works_from_a_fresh_shell_in_any_directory(house: House, tmp_path: Path) -> None:
    fresh = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PREFECT_PROFILES_PATH": house.env["PREFECT_PROFILES_PATH"],
    }
    command = [str(BIN / "prefect"), "deployment", "inspect", "pretrain/biomed"]
    shown = subprocess.run(command, env=fresh, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and "pretrain" in shown.stdout, shown.stderr


def _experiments(house: House) -> int:
    found = httpx.post(
        f"{house.mlflow_url}/api/2.0/mlflow/experiments/search", json={"max_results": 100}, trust_env=False
    )
    return len(found.raise_for_status().json().get("experiments", []))
