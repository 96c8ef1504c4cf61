"""The size of a regular expression's automaton, without building it.

Counted repetitions are written out by every compiler, so `((a{50}){50}){50}` has 125,000 states; an unbounded one
within another, `(a+)+`, matches one text in exponentially many ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUANTIFIER = re.compile(r"([*+?])|\{(\d*)(,?)(\d*)\}")
CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
GROUP = re.compile(r"\((\?(?::|<[A-Za-z_]\w*>|P<[A-Za-z_]\w*>))?")


class PatternError(ValueError):
    """A pattern cannot be bounded. The message continues the words "pattern X"."""


@dataclass
class _Part:
    """A sequence of atoms, or one."""

    repetitions: int = 0
    """Atoms that counted repetitions write out."""
    atoms: int = 0
    unbounded: bool = False
    """It contains `*`, `+` or `{n,}`."""

    def add(self, other: _Part) -> None:
        self.repetitions += other.repetitions
        self.atoms += other.atoms
        self.unbounded |= other.unbounded


def pattern_repetitions(pattern: str) -> int:
    """The number of atoms (characters, classes) that the counted repetitions of a pattern write out, nested ones
    multiplied: `(a{3}b){2}` has 8.

    Raises:
        PatternError: it has a quantifier without end within another quantifier, it looks around or back, or its
            parentheses or brackets do not match.
    """
    groups, at = [_Part()], 0
    while at < len(pattern):
        if pattern[at] == "(":
            group = GROUP.match(pattern, at)
            assert group is not None
            at = group.end()
            if pattern[at : at + 1] == "?":
                raise PatternError("looks around, or has flags, which is not supported")
            groups.append(_Part())
            continue
        if pattern[at] == ")":
            if len(groups) == 1:
                raise PatternError("has unbalanced parentheses")
            part, at = groups.pop(), at + 1
        else:
            part, at = _Part(atoms=1), _end_of_atom(pattern, at)
        if quantifier := QUANTIFIER.match(pattern, at):
            part, at = _repeat(part, quantifier), quantifier.end()
            at += pattern[at : at + 1] == "?"  # lazy: the same texts
            if QUANTIFIER.match(pattern, at):
                raise PatternError("has two quantifiers in a row")
        groups[-1].add(part)
    if len(groups) > 1:
        raise PatternError("has unbalanced parentheses")
    return groups[0].repetitions


def _end_of_atom(pattern: str, at: int) -> int:
    if pattern[at] == "[":
        found = CLASS.match(pattern, at)
        if found is None:
            raise PatternError("has a character class without an end")
        return found.end()
    if pattern[at] != "\\":
        return at + 1
    if pattern[at + 1 : at + 2] in tuple("123456789k"):
        raise PatternError("refers back to a group, which is not supported")
    return at + 2


def _repeat(part: _Part, quantifier: re.Match[str]) -> _Part:
    sign, least, comma, most = quantifier.groups()
    has_end = sign == "?" or (sign is None and not (comma and not most))
    if part.unbounded and sign != "?":
        raise PatternError("has a quantifier without end (*, + or {n,}) within another quantifier")
    if sign is not None:
        return _Part(part.repetitions, part.atoms, part.unbounded or not has_end)
    times = max(int(least or 0), int(most or 0))
    total = max(times * part.atoms, times * part.repetitions)
    return _Part(total, max(part.atoms, total), part.unbounded or not has_end)
