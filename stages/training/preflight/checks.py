"""What is refused before the first step: a config, tokens or a checkpoint that cannot be meant, and what to change.

A token id beyond the vocabulary would end a GPU's context with an error that names no data, so every batch's largest
id is looked at on the host. That costs microseconds; looking through all shards beforehand would read a terabyte at
every start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stages.store.errors import ConfigError, InputError, StoreError
from stages.tokens.fetch import shard_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.store.artifact import Artifact
    from stages.tokens.reader import TokenReader
    from stages.training.config import DataConfig, ParallelismConfig
    from stages.training.run import Run

TOKENIZER = "tokenizer/tokenizer.json"
IDENTITY = "identity"
"""Entry of a checkpoint's state that says which run it belongs to: `Run.identity`."""


def check_ranks(data: DataConfig, parallelism: ParallelismConfig, world: int) -> None:
    """Refuses more processes than a batch has sequences, since the rest would compute nothing that counts; and a number
    that copies of the model cannot be shared out over.

    Raises:
        ConfigError: what to change.
    """
    batch, shards = data.global_batch_size, parallelism.shards_per_replica or 1
    if world > batch:
        raise ConfigError(
            f"training: {world} workers share a batch of {batch} sequences, so {world - batch} of them would have "
            f"none; set training.parallelism.workers to {batch} at most, or raise training.data.global_batch_size"
        )
    if world % shards:
        divisors = ", ".join(str(n) for n in range(1, world + 1) if world % n == 0)
        raise ConfigError(
            f"training.parallelism.shards_per_replica ({shards}) does not divide the number of processes ({world}); "
            f"set it to one of {divisors}, or start a multiple of {shards} processes"
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
        fewer = f"training.parallelism.workers to {found} at most, or " if found else ""
        raise ConfigError(
            f"training.parallelism.device is cuda and asks for {_count(workers, 'GPU')}, one a worker, but this "
            f"machine has {found or 'none'}{f' ({why})' if why else ''}; set {fewer}training.parallelism.device to "
            "auto or cpu"
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
    """Refuses a stream whose vocabulary is not its tokenizer's: its ids would mean other tokens than intended.

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
            f"has {size}; build the tokens again (headwater verify names what changed)"
        )


def check_base_tokenizer(tokens: Artifact, base: Artifact) -> None:
    """Refuses tokens of another tokenizer than the base's: its embedding would be read by the wrong ids.

    Raises:
        InputError: what to do.
    """
    from stages.base.tokenizer import tokenizer_of

    if tokens.manifest.inputs.get("tokenizer") != tokenizer_of(base).digest:
        raise InputError(
            f"training: the tokens {tokens.id} are not of the tokenizer of the base {base.id}; build them with "
            "training.model.base set, which sets their tokenizer"
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
            f"training: {reader.folder}: stream.json says {size} tokens, but {' and '.join(wrong)}; build the tokens "
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
    file = reader.folder / reader.split / shard_name(reader.shards.sources[source], int(shard))
    raise StoreError(
        f"training: {file}: token {column} of row {first + row} is {rows[sample, token]}, and the vocabulary ends at "
        f"{reader.vocabulary_size - 1}: the tokens are damaged or of another tokenizer; headwater tokens verify finds "
        "all such ids, and then the tokens have to be built again"
    )


def describe_other_run(state: Mapping[str, Any], run: Run) -> str:
    """What shows that a checkpoint belongs to another run: a folder that somebody copied, or a recipe that was changed
    since. Empty if it belongs to this one.

    Args:
        state: the checkpoint's state.
    """
    theirs, ours = state.get(IDENTITY), run.identity()
    if theirs == ours:
        return ""
    if not isinstance(theirs, dict) or not isinstance(theirs.get("config"), dict):
        return "it does not say which recipe and tokens it belongs to"
    wrong = []
    if theirs.get("tokens") != ours["tokens"]:
        wrong.append(
            f"its tokens, and with them its tokenizer, are {theirs.get('tokens')}, this run's {ours['tokens']}"
        )
    if theirs.get("base") != ours.get("base"):
        wrong.append(f"its base is {theirs.get('base') or 'none'}, this run's {ours.get('base') or 'none'}")
    before, now = (_flattened(identity["config"]) for identity in (theirs, ours))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            sides = [f"{config[name]!r}" if name in config else "the default" for config in (before, now)]
            wrong.append(f"its {name} is {sides[0]}, this run's {sides[1]}")
    return f"it belongs to another run: {'; '.join(wrong)}; put back the recipe and the tokens that it was trained with"


def _flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of nested groups by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
