"""Whether the processes of one run are alike: the same software in all of them, and a card for each.

Ranks of mixed versions train: some steps later their losses differ, or a collective hangs that one of them does not
enter. So each reports at the start what it runs.
"""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.training.errors import TrainingError

SOURCES = ("models", "stages/store", "stages/tokens", "stages/training")
"""Folders of the code that a worker runs."""
CODE = (".py", ".c")
_HOSTS = 4
"""Places that are named for each side of a difference."""


@dataclass(frozen=True)
class Process:
    """What a rank reports about itself to the others."""

    host: str
    versions: Mapping[str, str]
    """Of what decides the arithmetic and the order of collectives, by name."""
    card: str = ""
    """Id of its GPU; empty on a CPU."""


def describe_process(cuda: bool) -> Process:
    """What this rank reports. Versions are those that are loaded, not those that are installed meanwhile."""
    import numpy
    import pyarrow
    import torch

    versions = {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "Headwater's source": source_digest(Path(__file__).parents[3]),
    }
    card = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid) if cuda else ""
    return Process(socket.gethostname(), versions, card)


def source_digest(root: Path) -> str:
    """Hex digest over names and bytes of the Python and C files that a worker runs: which a version number does not say
    of a working copy."""
    total = hashlib.blake2b(digest_size=6)
    for path in sorted(path for folder in SOURCES for path in (root / folder).rglob("*") if path.suffix in CODE):
        total.update(f"{path.relative_to(root)}\0".encode() + hashlib.blake2b(path.read_bytes()).digest())
    return total.hexdigest()


def check_rank_consistency(processes: Sequence[Process]) -> None:
    """Refuses ranks that differ. All ranks decide on the same list, so that all refuse.

    Args:
        processes: by rank.

    Raises:
        TrainingError: what differs, with hosts and ranks of each side, or ranks that share a card.
    """
    differences = []
    for name in sorted({name for process in processes for name in process.versions}):
        sides: dict[str, list[int]] = {}
        for rank, process in enumerate(processes):
            sides.setdefault(process.versions.get(name, "missing"), []).append(rank)
        if len(sides) > 1:
            most_first = sorted(sides.items(), key=lambda side: -len(side[1]))
            differences.append(
                f"{name} is {', but '.join(f'{v} on {_places(processes, ranks)}' for v, ranks in most_first)}"
            )
    if differences:
        raise TrainingError(
            f"training: the workers do not run the same software: {'; '.join(differences)}; install the same on "
            "every machine"
        )
    cards: dict[tuple[str, str], list[int]] = {}
    for rank, process in enumerate(processes):
        if process.card:
            cards.setdefault((process.host, process.card), []).append(rank)
    for (host, card), ranks in cards.items():
        if len(ranks) > 1:
            shared = ", ".join(map(str, ranks))
            raise TrainingError(
                f"training: ranks {shared} of {host} share the GPU {card}, and each needs one of its own; start as "
                "many processes as there are GPUs"
            )


def _places(processes: Sequence[Process], ranks: Sequence[int]) -> str:
    """Some hosts and their ranks: `node-2 (ranks 8, 9)`."""
    hosts: dict[str, list[int]] = {}
    for rank in ranks:
        hosts.setdefault(processes[rank].host, []).append(rank)
    named = [
        f"{host} (rank{'s' * (len(found) > 1)} {', '.join(map(str, found))})"
        for host, found in list(hosts.items())[:_HOSTS]
    ]
    more = len(hosts) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
