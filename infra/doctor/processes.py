"""Checks of ports, of listeners beyond loopback, and of processes that an earlier run left behind.

A process belongs to this installation if it was started with its HEADWATER_HOME, has its working folder inside it (vLLM
and Ray overwrite their environments), or descends from such a process.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra.doctor.result import Check
from infra.health import is_healthy
from stages.ports import listen_error

if TYPE_CHECKING:
    import psutil

_RAY = ("/ray/core/src/ray/", "/ray/_private/", "/ray/dashboard/", "/ray/autoscaler/", "ray::", "ray-dashboard-")
_TRAINING = "ray::RayTrainWorker"
_ENGINE = ("vllm::", "vllm.entrypoints", "warm_engine.py", "supervise.py")
_SERVICE = ("-m infra.prefect_server", "-m prefect worker start", "-m infra.mlflow_server", "-m serving ")


@dataclass(frozen=True)
class Process:
    """One running process."""

    pid: int
    parent: int
    """Pid of its parent."""
    name: str
    command: str
    home: str = ""
    """HEADWATER_HOME in its environment."""
    folder: str = ""
    """Its working folder."""
    listens: tuple[tuple[str, int], ...] = ()
    """Addresses and ports that it accepts TCP connections on."""

    @property
    def kind(self) -> str:
        """`Ray`, `engine` or `service`; empty: none of these."""
        for kind, marks in (("Ray", _RAY), ("engine", _ENGINE), ("service", _SERVICE)):
            if any(mark in self.command.lower() for mark in marks):
                return kind
        return ""


@dataclass(frozen=True)
class Snapshot:
    """The machine's processes at one moment, and those that this installation has a record of."""

    processes: dict[int, Process]
    home: str
    managed: dict[str, int] = field(default_factory=dict)
    """Pids of the services and of the runs in terminals, by name."""

    def family(self, roots: Iterable[int]) -> set[int]:
        """Pids of the processes and all their descendants."""
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

    def is_marked(self, process: Process) -> bool:
        """Whether this installation is its HEADWATER_HOME, or contains its working folder."""
        return process.home == self.home or f"{process.folder}/".startswith(f"{self.home}/")

    def ours(self) -> set[int]:
        """Pids of this installation: processes with a record, marked Ray, engines and services, and descendants."""
        marked = [p.pid for p in self.processes.values() if p.kind and self.is_marked(p)]
        return self.family([*self.managed.values(), *marked])

    def left_behind(self) -> list[Process]:
        """Ray, engines and services of this installation that have no record and no running parent program."""
        unmanaged = self.ours() - self.family(self.managed.values())
        found = (self.processes[pid] for pid in sorted(unmanaged))
        return [process for process in found if process.kind and not self._has_driver(process)]

    def _has_driver(self, process: Process) -> bool:
        # A test, or a script started by hand, also has Ray as a descendant, and is no service itself.
        above = self.processes.get(process.parent)
        seen = set()
        while above is not None and above.pid not in seen:
            if not above.kind and (self.is_marked(above) or ".venv/bin/" in above.command):
                return True
            seen.add(above.pid)
            above = self.processes.get(above.parent)
        return False


@dataclass(frozen=True)
class Port:
    """The port of one of our services."""

    service: str
    number: int
    variable: str
    pid: int | None = None
    """The service's process; None: it is not running."""
    healthy: bool = False
    error: int = 0
    """errno of an attempt to listen on the port; 0: it succeeded."""
    owner: Process | None = None
    """The process that listens on it; None: there is none, or this user cannot see it."""
    owner_is_ours: bool = False


def check_port(port: Port) -> Check:
    """Whether the port is free or in use by its service; else who uses it."""
    name = f"port {port.number}"
    other = f"set another port: {port.variable}=PORT"
    if port.pid and port.owner_is_ours and port.healthy:
        return Check(name, "ok", f"{port.service}, process {port.pid}, answers")
    if port.pid and (port.owner_is_ours or not port.error):
        found = f"{port.service}, process {port.pid}, is running but does not answer"
        remedy = f"unless it is still starting: see services/{port.service}.log in the state folder, then `make stop`"
        return Check(name, "warning", found, remedy)
    if not port.error:
        return Check(name, "ok", f"free for {port.service}")
    if port.error == errno.EACCES:
        return Check(name, "problem", f"this user may not listen on it ({port.service})", other)
    if port.owner is None:
        found = f"needed by {port.service}, in use by a process that this user cannot see"
        return Check(name, "problem", found, f"stop it (`ss -ltnp`, as root, shows it), or {other}")
    found = f"needed by {port.service}, in use by process {port.owner.pid} ({port.owner.name})"
    if port.owner_is_ours:
        remedy = f"`make stop`; if it is still running then, `kill {port.owner.pid}`"
        return Check(name, "problem", f"{found} of this installation", remedy)
    if port.owner.home:
        stop = f"`HEADWATER_HOME={port.owner.home} .venv/bin/headwater down`"
        found = f"{found} of the installation in {port.owner.home}"
        return Check(name, "problem", found, f"stop that installation: {stop}; or {other}")
    return Check(name, "problem", found, f"stop it (`kill {port.owner.pid}`), or {other}")


def check_distinct_ports(numbers: Sequence[int]) -> list[Check]:
    """Whether two services have the same port."""
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    remedy = "set different ports: HEADWATER_PREFECT_PORT, HEADWATER_MLFLOW_PORT, HEADWATER_GATEWAY_PORT"
    return [Check(f"port {number}", "problem", "is set for two services", remedy) for number in repeated]


def check_listeners(snapshot: Snapshot) -> Check:
    """Whether a process of this installation accepts connections from other machines."""
    name, ours = "listeners", [snapshot.processes[pid] for pid in sorted(snapshot.ours())]
    exposed = [(p, f"{_address(ip, port)}") for p in ours for ip, port in p.listens if not is_loopback(ip)]
    if not exposed:
        count = sum(len(process.listens) for process in ours)
        found = f"{count} ports of {len(ours)} processes, all on loopback"
        return Check(name, "ok", found if ours else "no process of this installation is running")
    by_process: dict[int, list[str]] = {}
    for process, address in exposed:
        by_process.setdefault(process.pid, []).append(address)
    named = [f"{snapshot.processes[pid].name} {pid} on {' and '.join(where)}" for pid, where in by_process.items()]
    found = f"reachable from other machines: {_few(named)}"
    if all(_TRAINING in process.command for process, _ in exposed):
        # On one machine of our own they do not; see stages.training.cluster.rendezvous.
        remedy = "block it with a firewall: on a cluster PyTorch's workers listen on every interface while they train"
        return Check(name, "warning", found, remedy)
    remedy = "change the setting that makes it listen there and restart it, or block the ports with a firewall"
    if any(process.kind == "Ray" for process, _ in exposed):
        remedy += "; Ray: export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which keeps a local cluster on loopback"
    return Check(name, "problem", found, remedy)


def check_leftovers(snapshot: Snapshot) -> Check:
    """Whether processes of a run that crashed are still running."""
    left = snapshot.left_behind()
    if not left:
        return Check("leftovers", "ok", "no process of an earlier run is running")
    pids = " ".join(str(process.pid) for process in left)
    found = f"the run or service that they belong to has ended: {_few([f'{p.name} {p.pid}' for p in left])}"
    return Check("leftovers", "warning", found, f"`kill {pids}`; after 10 s `kill -9` for those that remain")


def is_loopback(ip: str) -> bool:
    """True for 127.0.0.0/8, also mapped to IPv6, and for ::1."""
    address = ipaddress.ip_address(ip.split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def take_snapshot(home: str, managed: dict[str, int]) -> Snapshot:
    """Reads every process; what another user's processes hide stays empty."""
    import psutil  # here, so that ports can be checked before set-up

    from stages.processes import is_alive

    listens: dict[int, list[tuple[str, int]]] = {}
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr:
                listens.setdefault(connection.pid, []).append((connection.laddr.ip, connection.laddr.port))
    except psutil.Error:  # on some systems only root can read this; `listen_error` tests the ports themselves
        listens = {}
    found = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                if not is_alive(process):
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


def inspect_port(snapshot: Snapshot, service: str, number: int, variable: str, health: str) -> Port:
    """Reads who uses a port now."""
    pid = snapshot.managed.get(service)
    owner = next((p for p in snapshot.processes.values() if any(port == number for _, port in p.listens)), None)
    owner_is_ours = owner is not None and owner.pid in (snapshot.family([pid]) if pid else snapshot.ours())
    error = listen_error(number)
    return Port(
        service,
        number,
        variable,
        pid,
        healthy=bool(pid) and is_healthy(health),
        error=(error.errno or errno.EADDRINUSE) if error else 0,
        owner=owner,
        owner_is_ours=owner_is_ours,
    )


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _few(items: Sequence[str]) -> str:
    return ", ".join(items[:6]) + (f" and {len(items) - 6} more" if len(items) > 6 else "")
