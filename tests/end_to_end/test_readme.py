"""Every command in the README is run as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.end_to_end.house import House
from tests.support import REPOSITORY

BLOCKS = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
ELSEWHERE = {
    "make biomed": "test_main_job.test_a_second_run_skips_everything",
    ".venv/bin/headwater run biomed": "the house fixture, and what `make biomed` runs",
    ".venv/bin/prefect deployment run pretrain/biomed --watch": "test_deployment, from another directory",
    "make test": "what runs this",
    "make biomed DATA=path/to/documents EVAL=path/to/questions": "test_own_documents",
    ".venv/bin/headwater down": "the end of the house fixture: make stop",
    ".venv/bin/headwater compare RUN RUN --html curves.html": "tests/flows/test_compare.py",
    ".venv/bin/headwater export RUN --step 100 --to FOLDER": "tests/flows/cli/test_export.py",
    ".venv/bin/headwater tokens where biomed URI": "tests/flows/cli/test_tokens.py",
}


def commands() -> list[str]:
    """Every command of the README, continuation lines joined, comments dropped."""
    lines = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
    return [command for line in lines if (command := line.partition("  #")[0].strip())]


def test_the_readme_has_the_two_commands() -> None:
    assert {"make biomed", "make test"} <= set(commands())
    assert set(ELSEWHERE) <= set(commands()), "a command that is tested elsewhere is no longer in the README"


@pytest.mark.parametrize("command", [c for c in commands() if c not in ELSEWHERE])
def test_a_command_of_the_readme(house: House, command: str) -> None:
    """In this test's installation: its ports, state folder and shortened recipe replace the defaults."""
    here = command.replace("http://127.0.0.1:8000", house.gateway).replace(".headwater/", f"{house.folder}/home/")
    short = " ".join(f"--set '{item}'" for item in house.overrides)
    if "curl" in here and json.loads(house.ask("status", "--json"))["served"]["name"] != "biomed":
        house.headwater(
            "run", "biomed", *(f"--set={item}" for item in house.overrides)
        )  # another test serves a model of its own
    if "headwater run " in here or "tokens plan" in here:
        here += f" {short}"
    result = house.command(["bash", "-c", here], cwd=REPOSITORY)
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout.strip(), "it prints something"
    if "curl" in command:
        assert json.loads(result.stdout)["choices"][0]["text"].strip()


def test_folders_of_the_readme_exist() -> None:
    named = set(re.findall(r"^\| `(\w+)/`", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
    assert {"flows", "serving", "stages", "models", "infra"} <= named
    assert [name for name in named if not (Path(REPOSITORY) / name).is_dir()] == []
