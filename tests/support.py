"""Helpers of several parts of the tests: paths, ports, processes, a separate installation, a small tokenizer."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from hypothesis import settings
from moto.server import ThreadedMotoServer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.processes import is_alive

if TYPE_CHECKING:
    from stages.store import Artifact
    from stages.training.config import TrainingConfig

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
EOS = "<|endoftext|>"


def damaged_files(artifact: Artifact) -> list[str]:
    """Paths of an artifact's files that are missing or whose sha256 is not the manifest's; reads everything."""
    damaged = []
    for entry in artifact.manifest.files:
        exists = artifact.store.exists(f"{artifact.folder}/{entry.path}")
        if not exists or hashlib.sha256(artifact.read(entry.path)).hexdigest() != entry.sha256:
            damaged.append(entry.path)
    return damaged


REPEATABLE, EXPLORE = "repeatable", "explore"
"""Hypothesis' profiles: the same few examples every time, and many new ones (`--hypothesis-profile=explore`)."""
EXPLORED_TIMES = 20


def examples(count: int, **options: Any) -> settings:
    """Settings of a property test that draws `count` examples, and 20 times as many when it explores.

    Args:
        count: at most 50, the default of a test without these settings.
        options: further settings of Hypothesis.
    """
    assert count <= 50, "more examples are what the profile `explore` is for"
    explores = settings.get_current_profile_name() == EXPLORE
    return settings(max_examples=count * (EXPLORED_TIMES if explores else 1), **options)


FIRST_PORT, PORTS_A_WORKER = 20_000, 1_500
"""Below the kernel's range of ephemeral ports: no other process gets one between the check and its use."""
_next_port = itertools.count(os.getpid())


def free_port() -> int:
    """A loopback port that is free now. Processes that run tests side by side use ranges of their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    for number in itertools.islice(_next_port, PORTS_A_WORKER):
        port = FIRST_PORT + worker * PORTS_A_WORKER + number % PORTS_A_WORKER
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes that are still running."""
    return [process for process in processes if is_alive(process)]


INSTALLATION = ("HEADWATER_", "PREFECT_", "MLFLOW_")
"""Prefixes of the variables that name an installation: tests do not use those of the user who runs them."""


def installation(folder: Path) -> dict[str, str]:
    """Environment of an installation of its own: state folder, ports, Prefect profiles."""
    return {
        "HEADWATER_HOME": str(folder / "home"),
        "HEADWATER_STORE": str(folder / "home" / "store"),
        "HEADWATER_PREFECT_PORT": str(free_port()),
        "HEADWATER_MLFLOW_PORT": str(free_port()),
        "HEADWATER_GATEWAY_PORT": str(free_port()),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
    }


def byte_level_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE trained on the texts; its token 0 is EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class ObjectStore:
    """moto's S3 on loopback, in this process. It can be stopped and restarted with its content."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: ThreadedMotoServer | None = None

    @property
    def env(self) -> dict[str, str]:
        """What botocore, and so s3fs, reads."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # tests stop it on purpose
        }

    @property
    def stopped(self) -> bool:
        return self._server is None

    def start(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Closes the port; `start` opens it with the same buckets."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def training_config(**settings: Any) -> TrainingConfig:
    """A training config from settings of its groups: `training_config(steps=3, optimizer__lr=0.1)`."""
    from stages.training.config import TrainingConfig

    return TrainingConfig.model_validate(nested(settings))


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings `group__key` in their groups, as a recipe has them."""
    groups: dict[str, Any] = {}
    for name, value in settings.items():
        group, _, key = name.rpartition("__")
        (groups.setdefault(group, {}) if group else groups)[key] = value
    return groups
