"""Which ranks share a machine, and which rank of the next machine keeps a copy of a rank's checkpoints in memory."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from stages.memory import read_text
from stages.training.checkpoint.memory_tier import memory_root
from stages.training.parallelism.ranks import Ranks


@dataclass(frozen=True)
class Machines:
    """The machines of a run, numbered by their first rank."""

    of_rank: tuple[int, ...]
    """The machine of each rank."""
    rank: int
    """This one."""

    @property
    def mine(self) -> int:
        """This rank's machine."""
        return self.of_rank[self.rank]

    @property
    def count(self) -> int:
        return max(self.of_rank) + 1

    def ranks(self, machine: int) -> list[int]:
        return [rank for rank, found in enumerate(self.of_rank) if found == machine]

    @property
    def is_leader(self) -> bool:
        """Whether this is the first rank of its machine: it writes what the machine's ranks share."""
        return self.ranks(self.mine)[0] == self.rank

    def keeper(self, rank: int) -> int | None:
        """The rank of the next machine that keeps a copy of this rank's part; None if there is one machine only."""
        if self.count == 1:
            return None
        machine = self.of_rank[rank]
        there = self.ranks((machine + 1) % self.count)
        return there[self.ranks(machine).index(rank) % len(there)]

    def kept_by(self, keeper: int) -> list[int]:
        """The ranks whose part this one keeps."""
        return [rank for rank in range(len(self.of_rank)) if self.keeper(rank) == keeper]


def find_machines(ranks: Ranks) -> Machines:
    """Asks all ranks where they are. Those that see the same memory file system are on one machine."""
    boot = (read_text("/proc/sys/kernel/random/boot_id") or "").strip()
    names = ranks.all_gather_json(f"{socket.gethostname()} {boot} {memory_root()}")
    first = {name: names.index(name) for name in names}
    order = sorted(first.values())
    return Machines(tuple(order.index(first[name]) for name in names), ranks.rank)
