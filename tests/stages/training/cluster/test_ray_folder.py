"""The folder of a process's Ray: private, and removed once the process has ended."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

from stages.training.cluster.ray_folder import PREFIX, remove_abandoned

FOLDER = (
    "from stages.training.cluster.ray_folder import ray_folder\n"
    "assert ray_folder() == ray_folder()\n"
    "print(ray_folder().root, flush=True)\n"
    "input()"
)


MODES = {"token": 0o600, "in-use": 0o600, "tls.key": 0o600, "tls.crt": 0o600}


def start(base: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder below `base`, until its standard input ends."""
    command = [sys.executable, "-c", FOLDER]
    process = subprocess.Popen(
        command, env={"RAY_TMPDIR": str(base)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def test_it_is_private_and_the_next_process_removes_it_once_its_own_has_ended(tmp_path: Path) -> None:
    first, folder = start(tmp_path)
    assert folder.parent == tmp_path and modes(folder) == MODES | {folder.name: 0o700}
    second, other = start(tmp_path)
    assert folder.exists() and (folder / "token").read_text() != (other / "token").read_text()
    first.communicate("\n", timeout=60)
    assert folder.exists(), "the logs of a failure can be read"
    third, _ = start(tmp_path)
    assert not folder.exists() and other.exists()
    for process in (second, third):
        process.communicate("\n", timeout=60)


def test_what_is_no_abandoned_folder_of_ours_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "in-use").mkdir(parents=True)
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}unknown").mkdir()
    (tmp_path / f"{PREFIX}file").touch()
    (tmp_path / f"{PREFIX}used").mkdir()
    with (tmp_path / f"{PREFIX}used" / "in-use").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5 and (elsewhere / "in-use").exists()


def test_ray_leaves_sigterm_to_the_flow() -> None:
    """Its handler would abort the process with a dump, and leave processes of its own; the first import decides."""
    code = (
        "from stages.training.cluster.ray_cluster import import_ray; import_ray()\n"
        "from ray._private import ray_constants; print(ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER)"
    )
    for settings in ({}, {"RAY_ADDRESS": "127.0.0.1:1"}):
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True)
        assert done.stdout.strip() == "True", done.stderr
