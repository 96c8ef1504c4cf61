"""Memory that can still be allocated, in a container with a limit."""

from __future__ import annotations

import pytest

from stages.memory import available_memory

VERSION_2 = {
    "/proc/self/cgroup": "0::/job/step\n",
    "/sys/fs/cgroup/job/memory.max": "1000000\n",
    "/sys/fs/cgroup/job/memory.current": "600000\n",
    "/sys/fs/cgroup/job/memory.stat": "anon 1\ninactive_file 100000\n",
}
VERSION_1 = {
    "/proc/self/cgroup": "3:memory:/job\n",
    "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000000\n",
    "/sys/fs/cgroup/memory/job/memory.usage_in_bytes": "600000\n",
    "/sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 100000\n",
}


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1])
def test_a_container_has_what_its_limit_leaves(files: dict[str, str]) -> None:
    assert available_memory(files.get) == 500_000


def test_a_container_that_exceeds_its_limit_has_nothing() -> None:
    assert available_memory({**VERSION_2, "/sys/fs/cgroup/job/memory.current": "2000000\n"}.get) == 0


def test_without_a_limit_the_machine_decides() -> None:
    assert available_memory({**VERSION_2, "/sys/fs/cgroup/job/memory.max": "max\n"}.get) > 500_000
    assert available_memory() > 500_000
