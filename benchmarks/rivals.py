"""Environments of the rivals that benchmarks measure against: `.venv-bench` and `.venv-bench-tokens`."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def rivals_python(folder: Path, requirements: Path, beside_ours: bool = False) -> Path:
    """Creates the environment unless it has what the requirements name; returns its Python.

    Args:
        folder: of the environment.
        requirements: exact versions of all that is installed.
        beside_ours: what is not installed in it is imported from the pipeline's own environment.

    Packages come from the index in uv's or pip's own settings. One that cannot be installed leaves the others
    installed: a rival that does not start is reported when it is asked for.
    """
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = f"{hashlib.sha256(requirements.read_bytes()).hexdigest()} {sys.version.split()[0]}"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    (folder / ".gitignore").write_text("*\n")
    if beside_ours:
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "pipeline.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    if _install(python, ["--requirement", str(requirements)]) == 0:
        stamp.write_text(wanted)
        return python
    lines = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
    missing = [line for line in lines if _install(python, [line]) != 0]
    command = shlex.join([*_install_command(python), "--requirement", str(requirements)])
    print(
        f"{len(missing)} of {len(lines)} packages could not be installed into {folder}: {', '.join(missing)}. Rivals "
        f"that need them are not measured. Run this again when the package index answers; it runs\n  {command}",
        file=sys.stderr,
    )
    return python


def _install(python: Path, what: list[str]) -> int:
    """Exit code of an installation."""
    environment = dict(os.environ)
    # uv does not read pip's settings: the same hand-over as in infra/install.sh.
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if links:
        environment["UV_FIND_LINKS"] = links
    return subprocess.run([*_install_command(python), *what], env=environment).returncode


def _install_command(python: Path) -> list[str]:
    """uv's command, or pip's where there is no uv; without dependencies, since all of them are listed."""
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    if found:
        return [found, "pip", "install", "--quiet", "--python", str(python), "--no-deps"]
    return [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
