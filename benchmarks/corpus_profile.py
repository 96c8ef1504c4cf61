"""Profiles Headwater: its functions are wrapped where they are called, once for each batch, and timed.

A part's time is its own, without the parts that it calls.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

FILTERS = {
    "language": ("stages.corpus.filtering.language", "Language.scores"),
    "words": ("stages.corpus.filtering.words", "Splitter.split"),
    "words that only spaCy can split": ("stages.corpus.filtering.words", "tokenize_words"),
    "lengths": ("stages.corpus.filtering.filters", "text_lengths"),
    "quality": ("stages.corpus.filtering.filters", "_judge_quality"),
    "repetition: lines": ("stages.corpus.filtering.filters", "repeated_lines"),
    "repetition: n-grams": ("stages.corpus.filtering.filters", "repeated_ngrams"),
    "C4": ("stages.corpus.filtering.filters", "_judge_c4"),
}
NEAR = {
    "words": ("corpus_near", "word_hashes"),
    "n-grams": ("corpus_near", "ngram_hashes"),
    "MinHash": ("corpus_near", "band_hashes"),
    "candidates": ("corpus_near", "components"),
    "verification": ("corpus_near", "near_copies"),
}


class Clock:
    """Seconds by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - began
                self.seconds[part] += whole - self._inner.pop()
                self._inner[-1] += whole

        return wrapper


@contextmanager
def profiled(parts: Mapping[str, tuple[str, str]]) -> Iterator[Clock]:
    """Times the functions that `parts` names (label -> module, attribute) while the context is open.

    Raises:
        AttributeError: a function does not exist; its name here must be updated.
    """
    clock = Clock()
    changed: list[tuple[Any, str, Any]] = []
    try:
        for part, (module, path) in parts.items():
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            function = getattr(owner, name)
            changed.append((owner, name, function))
            setattr(owner, name, clock.timed(part, function))
        yield clock
    finally:
        for owner, name, function in reversed(changed):
            setattr(owner, name, function)


def nanoseconds_a_byte(prefix: str, clock: Clock, whole: float, size: int) -> dict[str, float]:
    """Nanoseconds per byte by part, and `the rest` for time in none of them."""
    rows = {f"{prefix}: {part}": seconds for part, seconds in clock.seconds.items()}
    rows[f"{prefix}: the rest"] = whole - sum(clock.seconds.values())
    return {part: seconds * 1e9 / size for part, seconds in rows.items()}
