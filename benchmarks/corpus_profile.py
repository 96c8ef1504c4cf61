"""Where Headwater's time goes: its own functions are wrapped where they are called, once a batch, and timed there.

A part's time is what it took itself, without the parts that it calls.
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
    "words that only spaCy can split": ("stages.corpus.filtering.words", "split_pieces"),
    "lengths": ("stages.corpus.filtering", "text_lengths"),
    "quality": ("stages.corpus.filtering", "_judge_quality"),
    "repetition: lines": ("stages.corpus.filtering", "repeated_lines"),
    "repetition: n-grams": ("stages.corpus.filtering", "repeated_ngrams"),
    "C4": ("stages.corpus.filtering", "_judge_c4"),
}
NEAR = {
    "words": ("stages.corpus.dedup.near.verify", "word_hashes"),
    "n-grams": ("stages.corpus.dedup.near.verify", "ngram_hashes"),
    "MinHash": ("stages.corpus.dedup.near.verify", "band_hashes"),
    "candidates": ("stages.corpus.dedup.near.verify", "components"),
    "verification": ("stages.corpus.dedup.near.verify", "near_copies"),
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
def watched(parts: Mapping[str, tuple[str, str]]) -> Iterator[Clock]:
    """Times the functions that `parts` names (label -> module, attribute) while it is open.

    Raises:
        AttributeError: a function is not there any more: its name here must follow.
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
    """By part, with what is in none of them as `the rest`."""
    rows = {f"{prefix}: {part}": seconds for part, seconds in clock.seconds.items()}
    rows[f"{prefix}: the rest"] = whole - sum(clock.seconds.values())
    return {part: seconds * 1e9 / size for part, seconds in rows.items()}
