"""A cancel that the run receives itself: it interrupts work, never a stop that has begun."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cancel import CancelledInPrefect, interrupt_on_cancel
from tests.support import free_port


@pytest.fixture(autouse=True)
def server_away() -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        yield


def test_it_interrupts_the_work_and_restores_every_handler():
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in watched]
    run = uuid4()
    with pytest.raises(CancelledInPrefect) as caught, interrupt_on_cancel(run):
        # Prefect reports a cancel as a crash where the handler of SIGTERM is not its own.
        assert [signal.getsignal(number) for number in watched[:2]] == before[:2]
        os.kill(os.getpid(), signal.SIGUSR1)
    assert caught.value.run == run
    assert [signal.getsignal(number) for number in watched] == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), TerminationSignal(signal.SIGTERM)], ids=["ctrl-c", "sigterm"])
def test_a_stop_that_has_begun_is_not_interrupted(stop: BaseException):
    checkpoints = []
    with pytest.raises(type(stop)) as caught, interrupt_on_cancel(uuid4()):
        try:
            raise stop
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            checkpoints.append("written")
    assert caught.value is stop and checkpoints == ["written"]
