"""What several parts of the tests call: paths, free ports, an installation of one's own, a small tokenizer."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
EOS = "<|endoftext|>"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
