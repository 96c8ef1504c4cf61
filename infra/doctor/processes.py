"""Ports, what of ours listens beyond loopback, and what an earlier run left behind.

A process is ours when it was started with this installation's HEADWATER_HOME, works in its folder (vLLM and Ray write
over their environments), or descends from one of those.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra.doctor.result import Check
from infra.health import answers

if TYPE_CHECKING:
    import psutil

_WHO = "stop it (`ss -ltnp`, as root, names it)"
_RAY = ("/ray/core/src/ray/", "/ray/_private/", "/ray/dashboard/", "/ray/autoscaler/", "ray::", "ray-dashboard-")
_TRAINING = "ray::RayTrainWorker"
_ENGINE = ("vllm::", "vllm.entrypoints", "warm_engine.py", "supervise.py")
_SERVICE = ("-m prefect server start", "-m prefect worker start", "-m mlflow server", "-m serving ")


@dataclass(frozen=True)
class Process:
    """One running process."""

    pid: int
    parent: int
    name: str
    command: str
    home: str = ""
    """HEADWATER_HOME that it was started with."""
    folder: str = ""
    """Its working folder."""
    listens: tuple[tuple[str, int], ...] = ()
    """Addresses and ports that it accepts TCP connections on."""

    @property
    def kind(self) -> str:
        """`Ray`, `engine`, `service`, or nothing of these."""
        for kind, marks in (("Ray", _RAY), ("engine", _ENGINE), ("service", _SERVICE)):
            if any(mark in self.command.lower() for mark in marks):
                return kind
        return ""


@dataclass(frozen=True)
class Snapshot:
    """The machine's processes at one moment, and which of them this installation remembers having started."""

    processes: dict[int, Process]
    home: str
    managed: dict[str, int] = field(default_factory=dict)
    """Name and pid of the services and of the runs in terminals."""

    def family(self, roots: Iterable[int]) -> set[int]:
        """The processes and all their descendants."""
        children: dict[int, list[int]] = {}
        for process in self.processes.values():
            children.setdefault(process.parent, []).append(process.pid)
        found: set[int] = set()
        waiting = [pid for pid in roots if pid in self.processes]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting.extend(children.get(pid, []))
        return found

    def bears_mark(self, process: Process) -> bool:
        """Was it started with this installation's HEADWATER_HOME, or does it work below it?"""
        return process.home == self.home or f"{process.folder}/".startswith(f"{self.home}/")

    def ours(self) -> set[int]:
        """What is managed, and Ray, engines and services that bear the mark; with descendants."""
        marked = [p.pid for p in self.processes.values() if p.kind and self.bears_mark(p)]
        return self.family([*self.managed.values(), *marked])

    def left_behind(self) -> list[Process]:
        """Ray, engines and services of this installation that nothing manages and no living program of it drives."""
        unmanaged = self.ours() - self.family(self.managed.values())
        found = (self.processes[pid] for pid in sorted(unmanaged))
        return [process for process in found if process.kind and not self._driven(process)]

    def _driven(self, process: Process) -> bool:
        # A test or a run by hand has Ray below it too, and is no service itself.
        above = self.processes.get(process.parent)
        seen = set()
        while above is not None and above.pid not in seen:
            if not above.kind and (self.bears_mark(above) or ".venv/bin/" in above.command):
                return True
            seen.add(above.pid)
            above = self.processes.get(above.parent)
        return False


@dataclass(frozen=True)
class Port:
    """A port that one of our services listens on or is to listen on."""

    service: str
    number: int
    variable: str
    pid: int | None = None
    """The running service."""
    answers: bool = False
    refusal: int = 0
    """Why it cannot be listened on (an errno); 0: it can."""
    owner: Process | None = None
    """Who listens there, if that can be seen."""
    owner_is_ours: bool = False


def judge_port(port: Port) -> Check:
    """Free, ours, or occupied, and by whom."""
    name = f"port {port.number}"
    other = f"choose another port: {port.variable}=PORT"
    if port.pid and port.owner_is_ours and port.answers:
        return Check(name, "ok", f"{port.service}, process {port.pid}, answers")
    if port.pid and (port.owner_is_ours or not port.refusal):
        found = f"{port.service}, process {port.pid}, runs but does not answer"
        mend = f"if it has not just been started: see services/{port.service}.log in the state folder, then `make stop`"
        return Check(name, "warning", found, mend)
    if not port.refusal:
        return Check(name, "ok", f"free for {port.service}")
    if port.refusal == errno.EACCES:
        return Check(name, "problem", f"this user may not listen there ({port.service})", other)
    if port.owner is None:
        return Check(
            name, "problem", f"wanted by {port.service}, used by a process that cannot be seen", f"{_WHO}, or {other}"
        )
    who = f"process {port.owner.pid} ({port.owner.name})"
    if port.owner_is_ours:
        mend = f"`make stop`; if it stays, `kill {port.owner.pid}`"
        return Check(name, "problem", f"wanted by {port.service}, used by {who} of this installation", mend)
    if port.owner.home:
        stop = f"`HEADWATER_HOME={port.owner.home} .venv/bin/headwater down`"
        found = f"wanted by {port.service}, used by {who} of the installation in {port.owner.home}"
        return Check(name, "problem", found, f"stop that one: {stop}; or {other}")
    return Check(
        name, "problem", f"wanted by {port.service}, used by {who}", f"stop it (`kill {port.owner.pid}`), or {other}"
    )


def judge_settings(numbers: Sequence[int]) -> list[Check]:
    """Two services on one port."""
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    mend = "give each its own: HEADWATER_PREFECT_PORT, HEADWATER_MLFLOW_PORT, HEADWATER_GATEWAY_PORT"
    return [Check(f"port {number}", "problem", "is set for two services", mend) for number in twice]


def judge_listeners(snapshot: Snapshot) -> Check:
    """Does anything of ours accept connections from other machines?"""
    name, ours = "listeners", [snapshot.processes[pid] for pid in sorted(snapshot.ours())]
    count = sum(len(process.listens) for process in ours)
    open_ = [(p, f"{_address(ip, port)}") for p in ours for ip, port in p.listens if not is_loopback(ip)]
    if not open_:
        found = (
            f"{count} ports of {len(ours)} processes, all on loopback" if ours else "nothing of this installation runs"
        )
        return Check(name, "ok", found)
    by_process: dict[int, list[str]] = {}
    for process, address in open_:
        by_process.setdefault(process.pid, []).append(address)
    told = [f"{snapshot.processes[pid].name} {pid} on {' and '.join(where)}" for pid, where in by_process.items()]
    found = f"open beyond loopback: {_few(told)}"
    if all(_TRAINING in process.command for process, _ in open_):
        # PyTorch has no setting for this.
        mend = "close it with a firewall: PyTorch's workers find each other there, on every interface, while they train"
        return Check(name, "warning", found, mend)
    mend = "unset what makes it listen there (`make stop`, then start again), or close the ports with a firewall"
    if any(process.kind == "Ray" for process, _ in open_):
        mend += "; Ray: export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which keeps a Ray of one machine on loopback"
    return Check(name, "problem", found, mend)


def judge_leftovers(snapshot: Snapshot) -> Check:
    """Processes of an earlier run that crashed."""
    left = snapshot.left_behind()
    if not left:
        return Check("leftovers", "ok", "no process of an earlier run")
    pids = " ".join(str(process.pid) for process in left)
    found = f"no run or service goes on that they belong to: {_few([f'{p.name} {p.pid}' for p in left])}"
    return Check("leftovers", "warning", found, f"end them: `kill {pids}`; what stays after 10 s: `kill -9`")


def is_loopback(ip: str) -> bool:
    """127.0.0.0/8, ::1, and the first of these written as IPv6."""
    address = ipaddress.ip_address(ip.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def take_snapshot(home: str, managed: dict[str, int]) -> Snapshot:
    """Looks at every process; what another user's hide stays empty."""
    import psutil  # here, so that ports can be tried before set-up

    listens: dict[int, list[tuple[str, int]]] = {}
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr:
                listens.setdefault(connection.pid, []).append((connection.laddr.ip, connection.laddr.port))
    except psutil.Error:  # some systems let only root see this; the ports themselves are tried by listening
        listens = {}
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                found[process.pid] = Process(
                    process.pid, process.ppid(), process.name(), " ".join(process.cmdline()), *_marks(process),
                    listens=tuple(sorted(listens.get(process.pid, []))),
                )  # fmt: skip
        except psutil.Error:  # it has just ended
            continue
    return Snapshot(found, os.path.realpath(home), managed)


def _marks(process: psutil.Process) -> tuple[str, str]:
    import psutil

    home = folder = ""
    try:
        home = process.environ().get("HEADWATER_HOME", "")
        folder = process.cwd()
    except (psutil.Error, OSError):  # another user's
        pass
    return os.path.realpath(home) if home else "", folder


def look_at_port(snapshot: Snapshot, service: str, number: int, variable: str, health: str) -> Port:
    """Who is there now?"""
    ours = snapshot.ours()
    pid = snapshot.managed.get(service)
    owner = next((p for p in snapshot.processes.values() if any(port == number for _, port in p.listens)), None)
    owner_is_ours = owner is not None and owner.pid in (snapshot.family([pid]) if pid else ours)
    return Port(
        service, number, variable, pid, bool(pid) and answers(health), _refusal(number), owner, owner_is_ours
    )  # fmt: skip


def _refusal(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return 0


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _few(items: Sequence[str]) -> str:
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
