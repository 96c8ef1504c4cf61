"""Runs every check on this machine. Imports the standard library only at the top: see `__main__`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infra.doctor import machine, software
from infra.doctor.result import Check, PendingCheck, as_json, exit_code, render, run_checks, run_command
from stages.memory import read_text
from stages.training.checkpoint.memory_tier import leftovers

if TYPE_CHECKING:
    from infra.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PIPE_WIDTH = 140
"""Columns of output that goes to a file or a pipe."""

_STORE_REMEDY = "make sure that the store's endpoint or mount (HEADWATER_STORE) responds"
_HOME_REMEDY = "give this user the folder (`chown`), or set HEADWATER_HOME to another absolute path"
_PORTS = {"PREFECT": "4200", "MLFLOW": "5000", "GATEWAY": "8000"}
"""The services' default ports, as in `infra.settings`, which cannot be imported before set-up."""

_SERVICES = ("prefect", "mlflow", "gateway", "prefect-worker")


def doctor(strict: bool = False, json_output: bool = False, environ: Mapping[str, str] | None = None) -> int:
    """Runs every check, prints the results, and returns the exit code: 1 if there is a problem, else 0.

    Args:
        strict: return 1 for warnings too.
    """
    checks = diagnose(os.environ if environ is None else environ)
    out = sys.stdout
    if json_output:
        out.write(json.dumps(as_json(checks), indent=1, ensure_ascii=False) + "\n")
    else:
        symbols = (out.encoding or "").lower().replace("-", "") == "utf8"
        terminal = out.isatty()
        width = shutil.get_terminal_size().columns if terminal else PIPE_WIDTH
        out.write(render(checks, width, terminal and "NO_COLOR" not in os.environ, symbols))
    out.flush()
    return exit_code(checks, strict)


def diagnose(environ: Mapping[str, str]) -> list[Check]:
    """Runs every check that can run; before set-up those of settings, services and store cannot."""
    try:
        from infra.settings import load_settings
        from stages.store import ConfigError
    except ImportError as error:
        rest = Check("services, store", "problem", f"not checked: {error}", "`make setup`, then run the doctor again")
        return run_checks(
            [
                *_checks_before_setup(environ, None),
                PendingCheck("ports", lambda: [*_check_ports_before_setup(environ), rest]),
            ]
        )
    try:
        settings = load_settings(environ)
    except ConfigError as error:
        remedy = "correct it, then run the doctor again: services and store were not checked"
        wrong = Check("settings", "problem", str(error), remedy)
        return run_checks([*_checks_before_setup(environ, None), PendingCheck("settings", lambda: [wrong])])
    return run_checks([*_checks_before_setup(environ, settings), *_checks_after_setup(environ, settings)])


def _checks_before_setup(environ: Mapping[str, str], settings: Settings | None) -> list[PendingCheck]:
    """Checks that need the standard library only."""
    home = str(settings.home) if settings else str(REPOSITORY / ".headwater")
    store = settings.store if settings else f"{home}/store"
    serve_python = settings.serve_python if settings else REPOSITORY / ".venv-serve" / "bin" / "python"
    main_python = REPOSITORY / ".venv" / "bin" / "python"
    if not main_python.exists() and settings:
        main_python = Path(sys.executable)  # a container image with one environment of any name
    local = "://" not in store or store.startswith(("file://", "local://"))
    installed = main_python.exists() and serve_python.exists()

    def disks() -> list[Check]:
        uses = {"environments": str(REPOSITORY), "state": home, "temporary files": tempfile.gettempdir()}
        folder = store.partition("://")[2] or store
        if local and os.path.isabs(folder):
            uses["store"] = folder
        return machine.check_disks([machine.read_disk_use(use, path) for use, path in uses.items()], installed)

    def environments() -> list[Check]:
        main = software.describe_environment(main_python, run_command)
        serve = software.describe_environment(serve_python, run_command)
        smi = software.query_nvidia_smi(run_command)
        gpu = software.check_gpus(smi, run_command, read_text, main, main_python, software.read_pci_devices())
        requirements = REPOSITORY / "infra" / "requirements"
        main_pins = software.parse_pins((requirements / "main.txt").read_text())
        serve_text = (requirements / "serve.txt").read_text()
        serve_pins = software.parse_pins(serve_text)
        vllm = serve_text.partition("# vllm==")[2].split("\n")[0].strip()
        has_gpu = bool(software.parse_gpus(smi))
        return [
            software.check_main_environment(main, main_pins, _required_packages(), _is_installed(main_python)),
            software.check_serving_environment(serve, serve_pins, vllm, has_gpu, _is_installed(serve_python)),
            gpu,
        ]

    return [
        PendingCheck("Python", lambda: [software.check_this_python()]),
        PendingCheck("environments", environments, 60.0),
        PendingCheck("cores", lambda: [machine.check_cores(len(os.sched_getaffinity(0)), read_text)]),
        PendingCheck("memory", lambda: [machine.check_memory(read_text)]),
        PendingCheck("disk", disks),
        PendingCheck("temporary folder", lambda: [machine.check_temporary_folder(environ)]),
        PendingCheck("shared memory", lambda: [machine.check_shared_memory(*machine.read_shared_memory())]),
        PendingCheck("memory checkpoints", lambda: machine.check_memory_checkpoints(leftovers())),
        PendingCheck("open files", lambda: [machine.check_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))]),
        PendingCheck("tools", lambda: [machine.check_tools()]),
        PendingCheck("C compiler", lambda: [machine.check_compiler()]),
        PendingCheck("clock", lambda: [machine.check_clock(time.time(), machine.read_clock_synchronised(), not local)]),
        PendingCheck("state folder", lambda: [machine.check_writable("state folder", home, _HOME_REMEDY)]),
    ]


def _checks_after_setup(environ: Mapping[str, str], settings: Settings) -> list[PendingCheck]:
    """Checks that need the environment's packages."""
    from infra.credentials import ALL, credential_file
    from infra.doctor import processes, safety, store
    from infra.services import service_process, services
    from stages.store.hashing import cache_folder

    def running() -> list[Check]:
        names = {path.stem for path in (settings.home / "services").glob("*.json")} | set(_SERVICES)
        found = {name: service_process(settings, name).find() for name in sorted(names)}
        pids = {name: process.pid for name, process in found.items() if process is not None}
        snapshot = processes.take_snapshot(str(settings.home), pids)
        with_port = [service for service in services(settings) if service.port]
        ports = [processes.inspect_port(snapshot, s.name, s.port, s.port_variable, s.health) for s in with_port]
        return [
            *_check_locks(settings),
            *processes.check_distinct_ports([service.port for service in with_port]),
            *map(processes.check_port, ports),
            processes.check_listeners(snapshot),
            processes.check_leftovers(snapshot),
        ]

    return [
        PendingCheck(
            "private folders",
            lambda: [
                safety.check_private_folder("state folder access", settings.home),
                safety.check_private_folder("cache access", cache_folder(), within=False),
            ],
            30.0,
        ),
        PendingCheck(
            "secrets",
            lambda: [
                safety.check_secret("API key", settings.api_key_file),
                *(safety.check_secret(f"password of {name}", credential_file(settings, name)) for name in ALL),
            ],
        ),
        PendingCheck("environment", lambda: safety.check_environment(environ, settings, safety.read_profiles(environ))),
        PendingCheck("services", running, 15.0, "find out whether `ps` or a service's port hangs; then `make stop`"),
        PendingCheck(
            "store", lambda: store.check_store(settings.store, run_command), store.TIMEOUT_SECONDS + 2, _STORE_REMEDY
        ),
    ]


def _check_locks(settings: Settings) -> list[Check]:
    """Whether the services that run ask for the passwords that are in their files."""
    from infra.credentials import credential_file
    from infra.services import lock_error, service_process, services

    found = []
    for service in services(settings):
        runs = service.locked and service_process(settings, service.name).find() is not None
        if runs and credential_file(settings, service.name).exists() and (error := lock_error(settings, service)):
            found.append(Check("locks", "problem", error, "`headwater down`, then `headwater up`"))
    return found or [Check("locks", "ok", "the services that run ask for their passwords")]


def _check_ports_before_setup(environ: Mapping[str, str]) -> list[Check]:
    from infra.doctor import processes

    no_processes = processes.Snapshot({}, "")
    ports = {name: environ.get(f"HEADWATER_{name}_PORT") or port for name, port in _PORTS.items()}
    return [
        processes.check_port(
            processes.inspect_port(no_processes, name.lower(), int(port), f"HEADWATER_{name}_PORT", health="")
        )
        for name, port in ports.items()
        if port.isdigit() and 0 < int(port) < 65536
    ]


def _is_installed(python: Path) -> bool:
    """True if set-up has finished, which it marks with a file; an environment outside of the repository has none."""
    folder = python.parent.parent
    return folder.parent != REPOSITORY or (folder / ".installed").exists()


def _required_packages() -> list[str]:
    try:
        return software.required_packages((REPOSITORY / "pyproject.toml").read_text())
    except ModuleNotFoundError:  # a Python without tomllib: `check_python` reports that it is too old
        return []
