"""Custom filters by import path, and datatrove's filters by name; they run unchanged, a document at a time."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datatrove.data import Document

from stages.corpus.filtering.config import CustomFilterConfig, DatatroveFilterConfig
from stages.corpus.policy import Removal
from stages.store import InputError

Verdict = bool | tuple[bool, str]


@dataclass(frozen=True)
class Judgement:
    """Verdict of such a filter on one text: why it is removed (None: it is kept), and the text after editing."""

    removal: Removal | None
    text: str


class CustomFilter:
    """The function or class at an import path, as a filter.

    Raises:
        InputError: it cannot be imported, created or called, it fails, or it does not return a verdict. The message has
            the path, never the text.
    """

    def __init__(self, config: CustomFilterConfig) -> None:
        self.path = config.path
        module_name, _, name = config.path.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise InputError(f"filter {self.path} cannot be imported: {error}") from error
        except Exception as error:
            raise InputError(f"filter {self.path} cannot be imported: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise InputError(f"filter {self.path} is neither a function nor a class")
        self._options = {} if inspect.isclass(found) else config.options
        function = found
        if inspect.isclass(found):
            try:
                function = found(**config.options)
            except Exception as error:
                raise InputError(f"filter {self.path} cannot be created: {type(error).__name__}: {error}") from error
            if not callable(function):
                raise InputError(f"filter {self.path}: objects of the class cannot be called")
        self._function: Callable[..., Verdict] = function

    def judge(self, text: str) -> Judgement:
        """The filter's verdict on a text."""
        try:
            verdict = self._function(text, **self._options)
        except Exception as error:
            # Only the type of the error: its message may quote the text.
            raise InputError(f"filter {self.path} failed: {type(error).__name__}") from error
        keep, reason = _verdict(verdict, f"filter {self.path}")
        return Judgement(None if keep else Removal("custom", 0.0, 0.0, f"{self.path} {reason}".strip()), text)


class DatatroveFilter:
    """One of datatrove's filters, by the name of its class.

    Raises:
        InputError: there is no such class, it cannot be created, or it fails.
    """

    def __init__(self, config: DatatroveFilterConfig) -> None:
        from datatrove.pipeline import filters
        from datatrove.pipeline.filters.base_filter import BaseFilter

        known = [
            name for name, found in vars(filters).items() if inspect.isclass(found) and issubclass(found, BaseFilter)
        ]
        self.name = config.name
        if config.name not in known:
            near = difflib.get_close_matches(config.name, known, cutoff=0.5) or sorted(known)
            raise InputError(f"datatrove has no filter {config.name!r}; similar names: {', '.join(near)}")
        try:
            self._filter = getattr(filters, config.name)(**config.options)
        except Exception as error:
            raise InputError(f"datatrove's {config.name} cannot be created: {type(error).__name__}: {error}") from error

    def judge(self, text: str) -> Judgement:
        """The filter's verdict on a text, and the text as the filter left it."""
        document = Document(text=text, id="")
        try:
            verdict = self._filter.filter(document)
        except Exception as error:
            raise InputError(f"datatrove's {self.name} failed: {type(error).__name__}") from error
        keep, reason = _verdict(verdict, f"datatrove's {self.name}")
        if not keep:
            return Judgement(Removal(f"datatrove_{self.name}", 0.0, 0.0, reason), text)
        return Judgement(None, document.text)


def _verdict(verdict: Any, who: str) -> tuple[bool, str]:
    if isinstance(verdict, tuple) and len(verdict) == 2 and isinstance(verdict[1], str | None):
        keep, reason = bool(verdict[0]), verdict[1] or ""
    elif isinstance(verdict, bool) or type(verdict).__name__ == "bool_":
        keep, reason = bool(verdict), ""
    else:
        raise InputError(f"{who} returned {type(verdict).__name__}; it must return a bool or (bool, str)")
    return keep, "" if keep else reason
