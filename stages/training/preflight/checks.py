"""What is refused before the first step: a config, tokens or a checkpoint that cannot be meant, and what to change.

A token id beyond the vocabulary would end a GPU's context with an error that names no data, so every batch's largest
id is looked at on the host. That costs microseconds; looking through all shards beforehand would read a terabyte at
every start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stages.store.errors import ConfigError, StoreError
from stages.tokens.fetch import shard_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.store.artifact import Artifact
    from stages.tokens.reader import TokenReader
    from stages.training.config import TrainingConfig
    from stages.training.run import Run

TOKENIZER = "tokenizer/tokenizer.json"
OF = "of"
"""Entry of a checkpoint's state that says which run it is of: `Run.identity`."""


def check_ranks(config: TrainingConfig, world: int) -> None:
    """Refuses more processes than a batch has sequences, for the rest would compute nothing that counts; and a number
    that the copies of the model cannot share out.

    Raises:
        ConfigError: what to change.
    """
    if world > config.batch:
        raise ConfigError(
            f"training: {world} workers share a batch of {config.batch} sequences, so {world - config.batch} of them "
            f"would have none; set training.workers to {config.batch} at most, or raise training.batch"
        )
    if world % config.replicas:
        divisors = ", ".join(str(n) for n in range(1, world + 1) if world % n == 0)
        raise ConfigError(
            f"training.replicas ({config.replicas}) does not divide the number of processes ({world}), which share the "
            f"copies of the model out; set it to one of {divisors}, or start a multiple of {config.replicas} processes"
        )


def check_cards(workers: int, found: int, why: str = "") -> None:
    """Refuses `device: cuda` where there are fewer GPUs than workers.

    Args:
        found: GPUs that are there.
        why: what is known about the missing ones.

    Raises:
        ConfigError: what to change.
    """
    if found < workers:
        fewer = f"training.workers to {found} at most, or " if found else ""
        raise ConfigError(
            f"training.device is cuda and asks for {_count(workers, 'GPU')}, one a worker, but this machine has "
            f"{found or 'none'}{f' ({why})' if why else ''}; set {fewer}training.device to auto or cpu"
        )


def check_device(device: str) -> None:
    """Refuses `device: cuda` in a process that sees no GPU.

    Raises:
        ConfigError: what to change, and why PyTorch sees none.
    """
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        why = "PyTorch finds no driver or no device" if built else f"PyTorch {torch.__version__} is built without CUDA"
        check_cards(1, 0, why)


def check_tokenizer(tokens: Artifact) -> None:
    """Refuses a stream whose vocabulary is not its tokenizer's: ids would mean other tokens than they were made from.

    Reads `tokenizer.json`, some megabytes at most; once a run, before any worker.

    Raises:
        StoreError: the two sizes, or what cannot be read.
    """
    try:
        said = int(json.loads(tokens.read("stream.json"))["vocabulary_size"])
        document = json.loads(tokens.read(TOKENIZER))
        vocabulary = document["model"]["vocab"]
        highest = max(vocabulary.values()) if isinstance(vocabulary, dict) else len(vocabulary) - 1
        size = max(highest, *(token["id"] for token in document.get("added_tokens") or [{"id": -1}])) + 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"training: {tokens.id}: {TOKENIZER} or stream.json cannot be read: {error!r}") from error
    if size != said:
        raise StoreError(
            f"training: the tokens {tokens.id} are not of their tokenizer: stream.json says {said} tokens, {TOKENIZER} "
            f"has {size}; make the tokens again (headwater verify names what changed)"
        )


def check_stream(reader: TokenReader) -> None:
    """Refuses a stream whose parts disagree about the vocabulary. Reads no row.

    Raises:
        StoreError: which part, and what it says.
    """
    size = reader.vocabulary_size
    known = len(reader.token_bytes)
    wrong = []
    if not reader.eos_id < size:
        wrong.append(f"eos_id is {reader.eos_id}")
    if known != size:
        wrong.append(f"token_bytes.npy has {known} tokens")
    if wrong:
        raise StoreError(
            f"training: {reader.folder}: stream.json says {size} tokens, but {' and '.join(wrong)}; make the tokens "
            "again (headwater verify names what changed)"
        )


def check_ids(rows: NDArray[Any], reader: TokenReader, places: Callable[[], NDArray[np.int64]]) -> None:
    """Refuses token ids that the model has no embedding for.

    Args:
        rows: samples [n, T] as they are stored, any integers from 0 on.
        places: gives (source, shard, first row) of each, [n, 3]; called only if an id is refused.

    Raises:
        StoreError: the first such id, with file and row.
    """
    if not rows.size or rows.max() < reader.vocabulary_size:
        return
    sample, token = divmod(int((rows >= reader.vocabulary_size).ravel().argmax()), rows.shape[1])
    source, shard, first = places()[sample]
    row, column = divmod(token, reader.sequence_length)
    file = reader.folder / reader.part / shard_name(reader.shards.sources[source], int(shard))
    raise StoreError(
        f"training: {file}: token {column} of row {first + row} is {rows[sample, token]}, and the vocabulary ends at "
        f"{reader.vocabulary_size - 1}: the tokens are damaged or of another tokenizer; headwater tokens verify finds "
        "all such ids, and then the tokens have to be made again"
    )


def check_checkpoint(state: Mapping[str, Any], run: Run, place: str) -> None:
    """Refuses a checkpoint that another run has left: a folder that somebody copied, or a recipe changed behind it.

    Args:
        state: the checkpoint's state.
        place: where it lies.

    Raises:
        StoreError: what differs, both sides named.
    """
    theirs, ours = state.get(OF), run.identity()
    if theirs == ours:
        return
    if theirs is None:
        raise StoreError(
            f"training: the checkpoint {place} does not say which recipe and tokens it is of (it is of an earlier "
            "version); remove it to train from the start"
        )
    wrong = []
    if theirs["tokens"] != ours["tokens"]:
        wrong.append(f"its tokens, and with them its tokenizer, are {theirs['tokens']}, this run's {ours['tokens']}")
    before, now = theirs["config"], ours["config"]
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            sides = [f"{config[name]!r}" if name in config else "the default" for config in (before, now)]
            wrong.append(f"its {name} is {sides[0]}, this run's {sides[1]}")
    raise StoreError(
        f"training: the checkpoint {place} is of another run: {'; '.join(wrong)}; remove it to train from the start, "
        "or put back the recipe and the tokens that it was trained with"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
