"""Nothing phones home: every address that a process of an installation asks for, from its start to `make stop`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.house import BIN, SHORT, House, own_environment, processes_of
from tests.support import REPOSITORY

TRACED = "connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(r'sa_family=AF_INET6?\b.*?(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+")


def foreign(trace: str) -> list[str]:
    """The lines of strace's output in which a process connects, or sends, to an address beyond this machine."""
    found = ((line, _ADDRESS.search(line)) for line in trace.splitlines())
    return [line for line, address in found if address and not LOOPBACK.fullmatch(address[1])]


def test_foreign_addresses_are_recognized() -> None:
    own = 'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0'
    mapped = 'connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::ffff:127.0.0.1", &a)}, 28) = 0'
    file = 'connect(3, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT'
    cloud = 'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("169.254.169.254")}, 16) = -1'
    names = 'sendto(3, "..", 40, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = 40'
    other = 'connect(3, {sa_family=AF_INET6, sin6_port=htons(443), inet_pton(AF_INET6, "2001:db8::1", &a)}, 28) = -1'
    assert foreign("\n".join([own, mapped, file, cloud, names, other])) == [cloud, names, other]


@pytest.mark.full
def test_no_process_connects_beyond_this_machine_or_looks_up_a_name(tmp_path: Path) -> None:
    """The whole life of an installation under strace: first start, a run in a terminal and one by the worker, the end.

    Only all the processes together, as they are started, show what each library does by itself.
    """
    if shutil.which("strace") is None:
        pytest.skip("connections not traced: no strace")
    house = House(own_environment(tmp_path), tmp_path, {}, "")
    settings = [f"{key}={value}" for key, value in SHORT.items()]
    overrides = json.dumps([*settings, "training.steps=41"])  # another training run
    headwater = shlex.quote(str(BIN / "headwater"))
    deployment = [str(BIN / "prefect"), "deployment", "run", "pretrain/biomed", "--watch", "--param"]
    script = f"""
        {headwater} run biomed {shlex.join(f"--set={item}" for item in settings)} &&
        {shlex.join([*deployment, f"overrides={overrides}"])} &&
        {headwater} doctor --json > doctor.json
        {headwater} down
    """
    trace = tmp_path / "trace"
    command = ["strace", "-f", "--seccomp-bpf", "-e", f"trace={TRACED}", "-o", str(trace), "bash", "-c", script]
    try:
        result = house.command(command, check=False)
    finally:
        house.command(["make", "stop"], cwd=REPOSITORY)
    text = trace.read_text(errors="replace")
    assert "Flow run finished successfully" in " ".join((result.stdout + result.stderr).split()), result.stderr
    assert foreign(text) == []
    assert text.count("AF_INET") > 100, "strace has seen the services, Ray and vLLM"
    assert processes_of(tmp_path) == {}
