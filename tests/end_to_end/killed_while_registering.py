"""Runs `headwater` like its command, and dies by SIGKILL in the middle of registering the model.

    python killed_while_registering.py METHOD run biomed ...

METHOD of MLflow's client is called for real, and nothing after it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from mlflow import MlflowClient

from flows.cli.main import main


def kill_after(method: str) -> None:
    """Kills this process after the first call of the method."""
    real = getattr(MlflowClient, method)

    def last(self: MlflowClient, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, method, last)


if __name__ == "__main__":
    kill_after(sys.argv.pop(1))
    main()
