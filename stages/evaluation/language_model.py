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
"""More Python threads slow each other down."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in evaluation mode, with its tokenizer and limits."""

    model: Any
    """transformers' model; `model(ids).logits` is [batch, length, vocabulary]."""
    tokenizer: Any
    max_length: int
    """Context length in tokens."""
    device: torch.device
    logit_bytes: int
    """Memory limit for the float32 logits of one forward pass."""
    workers: int = 1
    """Concurrent forward passes, see `in_parallel`."""

    @property
    def vocabulary_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    def batch_size(self, length: int) -> int:
        """Sequences of `length` tokens whose logits and log-softmax fit into `logit_bytes`; at least one."""
        return max(1, min(256, self.logit_bytes // (8 * length * self.vocabulary_size)))


def in_parallel(model: LanguageModel, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` on every item, in order, by `model.workers` threads.

    On a CPU one pass per thread is faster than one pass on all threads for small models, and much faster on a busy
    machine: the threads of one pass spin until all have finished an operation. On two busy cores the same work took 4 s
    of CPU time this way, and 14 to 29 s with one pass on all threads (5M parameters, 80 MedQA questions).
    """
    if model.workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(model.workers) as pool:
        yield from pool.map(work, items)


@contextmanager
def cpu_threads(model: LanguageModel, threads: int | None) -> Iterator[None]:
    """Divides the threads among the workers, and restores PyTorch's setting afterwards: the process may continue after
    the stage."""
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
        InputError: stock transformers cannot load the folder.
        ConfigError: the device is not available.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = _device(config.device)
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; expected a Hugging Face model folder")
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
        raise ConfigError(f"evaluation: unknown device {name!r}; use cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"evaluation: device {name!r} is not available, PyTorch finds no GPU; use auto or cpu")
    return device
