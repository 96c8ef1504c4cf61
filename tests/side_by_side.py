"""How tests are handed to processes side by side (`pytest -n 3`): tests that share a slow start stay together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

GROUPS = {
    r"tests/end_to_end/test_disturbed": "an installation that is disturbed",
    r"tests/end_to_end/": "the finished installation",
    r"tests/faults/": "the forge and what stages make undisturbed",
}
"""By the beginning of a test's id; all else is grouped by file. The slowest groups start first."""


def group(test: str) -> str:
    """What a test belongs to."""
    return next((name for begin, name in GROUPS.items() if re.match(begin, test)), test.partition("::")[0])


def in_order(items: list[pytest.Item]) -> None:
    """Sorts tests by group, the groups of `GROUPS` first; inside a group or a file, their order does not change."""
    first = list(GROUPS.values())
    items.sort(key=lambda item: first.index(name) if (name := group(item.nodeid)) in first else len(first))


class ByGroup(LoadScopeScheduling):
    """Hands out one group after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
