"""What the documents name exists: links, and the tests that show what they claim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((REPOSITORY / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in link}
    assert links or page.name != "README.md"
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    """By their path below `tests/`; after one, its neighbours by name alone."""
    tests = REPOSITORY / "tests"
    folder = tests
    for named in re.findall(r"`([\w/.]*test_\w+\.py)", page.read_text()):
        path = named.removeprefix("tests/")
        if "/" in path:
            folder = (tests / path).parent
        assert (folder / Path(path).name).is_file(), f"{named}: not in {folder.relative_to(REPOSITORY)}"
