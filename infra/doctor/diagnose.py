"""Every check, on this machine. Standard library only at its top: see `__main__`."""

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
from infra.doctor.result import Check, Look, as_json, exit_code, read_text, render, run_command, run_looks

if TYPE_CHECKING:
    from infra.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PIPE_WIDTH = 140
"""Columns in a file or a pipe."""

_STORE_MEND = "see that the store's endpoint or mount answers: `HEADWATER_STORE` names it"
_HOME_MEND = "give this user the folder (`chown`), or set HEADWATER_HOME to an absolute path elsewhere"
_PORTS = {"PREFECT": "4200", "MLFLOW": "5000", "GATEWAY": "8000"}
"""The services' ports, as in `infra.settings`, which cannot be asked before set-up."""

_SERVICES = ("prefect", "mlflow", "gateway", "prefect-worker")


def doctor(strict: bool = False, json_output: bool = False, environ: Mapping[str, str] | None = None) -> int:
    """Looks at everything, prints what it found, and returns the exit code: 0 fine or warnings only, 1 a problem.

    Args:
        strict: 1 for warnings too.
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
    """Runs every check that can be run; before set-up those on settings, services and store cannot."""
    try:
        from infra.settings import load_settings
        from stages.store import ConfigError
    except ImportError as error:
        told = f"not looked at: {error}"
        rest = Check("services, store", "problem", told, "`make setup`, then look again")
        return run_looks([*_early(environ, None), Look("ports", lambda: [*_bare_ports(environ), rest])])
    try:
        settings = load_settings(environ)
    except ConfigError as error:
        wrong = Check("settings", "problem", str(error), "set it right, then look again: services and store need it")
        return run_looks([*_early(environ, None), Look("settings", lambda: [wrong])])
    return run_looks([*_early(environ, settings), *_late(environ, settings)])


def _early(environ: Mapping[str, str], settings: Settings | None) -> list[Look]:
    """What can be told on a bare Python."""
    home = str(settings.home) if settings else str(REPOSITORY / ".headwater")
    store = settings.store if settings else f"{home}/store"
    serve_python = settings.serve_python if settings else REPOSITORY / ".venv-serve" / "bin" / "python"
    main_python = REPOSITORY / ".venv" / "bin" / "python"
    if not main_python.exists() and settings:
        main_python = Path(sys.executable)  # an image that holds one environment and calls it what it likes
    local = "://" not in store or store.startswith(("file://", "local://"))
    installed = main_python.exists() and serve_python.exists()

    def disks() -> list[Check]:
        uses = {"environments": str(REPOSITORY), "state": home, "temporary files": tempfile.gettempdir()}
        folder = store.partition("://")[2] or store
        if local and os.path.isabs(folder):
            uses["store"] = folder
        return machine.disks([machine.place(use, path) for use, path in uses.items()], installed)

    def environments() -> list[Check]:
        main, serve = software.describe(main_python, run_command), software.describe(serve_python, run_command)
        asked = software.nvidia_smi(run_command)
        gpu = software.gpus(asked, run_command, read_text, main, main_python, software.pci_devices())
        requirements = REPOSITORY / "infra" / "requirements"
        main_pins = software.pins((requirements / "main.txt").read_text())
        serve_text = (requirements / "serve.txt").read_text()
        vllm = serve_text.partition("# vllm==")[2].split("\n")[0].strip()
        has_gpu = bool(software.gpu_rows(asked))
        return [
            software.main_environment(main, main_pins, _required(), _stamp(main_python)),
            software.serve_environment(serve, software.pins(serve_text), vllm, has_gpu, _stamp(serve_python)),
            gpu,
        ]

    return [
        Look("Python", lambda: [software.this_python()]),
        Look("environments", environments, 60.0),
        Look("cores", lambda: [machine.cores(len(os.sched_getaffinity(0)), read_text)]),
        Look("memory", lambda: [machine.memory(read_text)]),
        Look("disk", disks),
        Look("temporary folder", lambda: [machine.temporary_folder(environ)]),
        Look("shared memory", lambda: [machine.shared_memory(*machine.read_shared_memory())]),
        Look("open files", lambda: [machine.open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))]),
        Look("tools", lambda: [machine.tools()]),
        Look("C compiler", lambda: [machine.compiler()]),
        Look("clock", lambda: [machine.clock(time.time(), machine.read_synchronised(), not local)]),
        Look("state folder", lambda: [machine.writable("state folder", home, _HOME_MEND)]),
    ]


def _late(environ: Mapping[str, str], settings: Settings) -> list[Look]:
    """What needs the environment's packages."""
    from infra.doctor import processes, safety, store
    from infra.services import managed, services

    def running() -> list[Check]:
        names = {path.stem for path in (settings.home / "services").glob("*.json")} | set(_SERVICES)
        found = {name: managed(settings, name).find() for name in sorted(names)}
        pids = {name: process.pid for name, process in found.items() if process is not None}
        snapshot = processes.take_snapshot(str(settings.home), pids)
        wanted = [service for service in services(settings) if service.port]
        ports = [processes.look_at_port(snapshot, s.name, s.port, s.port_variable, s.health) for s in wanted]
        return [
            *processes.judge_settings([service.port for service in wanted]),
            *map(processes.judge_port, ports),
            processes.judge_listeners(snapshot),
            processes.judge_leftovers(snapshot),
        ]

    return [
        Look("API key", lambda: [*safety.state_folder(settings.home), safety.api_key(settings.api_key_file)]),
        Look("environment", lambda: safety.environment(environ, settings, safety.read_profiles(environ))),
        Look("services", running, 15.0, "see whether `ps` and the services' ports answer; then `make stop`"),
        Look("store", lambda: store.look(settings.store, run_command), store.SECONDS + 2, _STORE_MEND),
    ]


def _bare_ports(environ: Mapping[str, str]) -> list[Check]:
    from infra.doctor import processes

    nothing = processes.Snapshot({}, "")
    chosen = {name: environ.get(f"HEADWATER_{name}_PORT") or port for name, port in _PORTS.items()}
    return [
        processes.judge_port(
            processes.look_at_port(nothing, name.lower(), int(port), f"HEADWATER_{name}_PORT", health="")
        )
        for name, port in chosen.items()
        if port.isdigit() and 0 < int(port) < 65536
    ]


def _stamp(python: Path) -> bool:
    """Set-up leaves it when it has finished; an environment that is not the repository's has none to leave."""
    folder = python.parent.parent
    return folder.parent != REPOSITORY or (folder / ".installed").exists()


def _required() -> list[str]:
    try:
        return software.required((REPOSITORY / "pyproject.toml").read_text())
    except ModuleNotFoundError:  # a Python without tomllib is told elsewhere that it is too old
        return []
