"""The model under evaluation: a local Hugging Face folder, loaded once for both measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stages.evaluation.config import EvaluationConfig
from stages.store import ConfigError, InputError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 8
"""More Python threads than this get in each other's way."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, its tokenizer, and what its context holds."""

    model: Any
    """transformers' model; `model(ids).logits` is [batch, length, vocabulary]."""
    tokenizer: Any
    max_length: int
    """Tokens of context."""
    device: torch.device
    memory: int
    """Bytes that one forward pass's float32 logits may take."""
    workers: int = 1
    """Forward passes at a time, see `in_parallel`."""

    @property
    def vocabulary_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    def batch(self, length: int) -> int:
        """Sequences of `length` tokens whose logits and their log-softmax fit into `memory`; at least one."""
        return max(1, min(256, self.memory // (8 * length * self.vocabulary_size)))


def in_parallel(model: LanguageModel, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` on every item, in order, by `model.workers` threads.

    On a CPU one pass a thread beats one pass on all threads where models are small, and by far where something else
    runs beside: the threads of one pass wait for each other after every operation, spinning. On two busy cores the
    same work took 4 s of processor time this way and 14 to 29 s that way (5M parameters, 80 MedQA questions).
    """
    if model.workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(model.workers) as pool:
        yield from pool.map(work, items)


@contextmanager
def cpu_threads(model: LanguageModel, threads: int | None) -> Iterator[None]:
    """Shares the threads out between the workers, and gives PyTorch's setting back afterwards: the stage may run in a
    process that lives longer."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (threads or before) // model.workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_model(folder: Path, config: EvaluationConfig) -> LanguageModel:
    """Loads weights (SafeTensors only, no code from the folder) and tokenizer from `folder`.

    Raises:
        InputError: the folder is no model that stock transformers loads.
        ConfigError: the device is not there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = _device(config.device)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; a Hugging Face model folder is wanted")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=config.dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: stock transformers cannot load this model: {error}") from error
    model.to(device).eval()
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    length = min(config.max_length or own, own)
    memory = config.memory_mib or (32 if device.type == "cpu" else 1024)
    workers = min(config.threads or torch.get_num_threads(), MAX_WORKERS) if device.type == "cpu" else 1
    return LanguageModel(model, tokenizer, int(length), device, memory << 20, workers)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"evaluation: device {name!r} is unknown; cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"evaluation: device {name!r} is asked for, and PyTorch sees no GPU here; use auto or cpu")
    return device
