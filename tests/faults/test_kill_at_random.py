"""Repeated kills at random operations, until the stage finishes: `pytest -m full tests/faults`.

Seeded: round n of a place kills in the same places every time.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from stages.store import Artifact, Store
from tests.faults.checks import assert_same
from tests.faults.forge import KILL, KILL_GROUP, Forge, Moment, event, store

SECONDS = 90.0
"""Duration of the test for each place."""
KINDS = ("sample", "corpus", "tokens", "model", "training")


def moment(rng: random.Random) -> Moment:
    """Some event or operation, before or behind it."""
    act, after, nth = rng.choice([KILL, KILL_GROUP]), rng.random() < 0.5, 1 + int(rng.expovariate(0.2))
    method = rng.choice(["put", "create", "put_file", "append", "list", "files", "exists", "remove", None])
    return event("", nth=nth, act=act) if method is None else store(method, nth=nth, after=after, act=act)


@pytest.mark.full
@pytest.mark.parametrize("place", ["file", "s3"], indirect=True)
def test_killed_at_random(place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path) -> None:
    kills = rounds = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        rng = random.Random(rounds)
        kind, workers = KINDS[rounds % len(KINDS)], rng.choice([1, 1, 2])
        rounds += 1
        for _ in range(rng.randint(1, 4)):
            run = forge.start(kind, place, moment(rng), workers=workers)
            killed = run.wait() == -signal.SIGKILL
            assert killed or run.status == 0, (rounds, run.result, run.log)
            assert run.all_ended()
            kills += killed
        assert_same(undisturbed[kind], forge.run(kind, place, workers=workers), place, tmp_path / "cache")
        for name in Store(place).list(""):
            Store(place).remove(name)
        Store(place).remove("")
    print(f"{place.partition('://')[0] if '://' in place else 'file'}: {rounds} rounds, {kills} kills")
