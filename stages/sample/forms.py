"""The small language that sentence forms are written in.

A form is a string with slots and alternatives: ``<S>`` is the entity, ``<V>`` the attribute (``<aV>`` with its
indefinite article, ``<Vs>`` in the plural, ``<tV>`` with "the" where English wants one), ``<N>`` a small number, and
``[a|b|c]`` a choice. Forms start in lower case and end without a full stop, so that they can be embedded in longer
sentences. Nearly all name the entity, because a small model learns a fact from the two names standing close together.
"""

# ruff: noqa: SIM905 (word lists read best as words)
from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

Draw = Callable[[], float]
Form = tuple[str | tuple[str, ...], ...]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_DEFINITE_HEADS = frozenset(
    "receptor channel cotransporter transporter subunit protein proteasome kinase antigen ligand".split()
)


def compile_form(text: str) -> Form:
    """Splits a form into literal strings and tuples of alternatives."""
    parts: list[str | tuple[str, ...]] = []
    for number, piece in enumerate(_CHOICE.split(text)):
        if number % 2:
            parts.append(tuple(piece.split("|")))
        elif piece:
            parts.append(piece)
    return tuple(parts)


def compile_forms(block: str) -> tuple[Form, ...]:
    """Compiles a block of forms, one a line."""
    return tuple(compile_form(line) for line in block.strip().splitlines())


_SPOKEN_VOWEL = ("ACE ", "SGLT2 ", "X-linked ")
_SPOKEN_CONSONANT = ("uricosuric",)


def article(noun: str) -> str:
    """``noun`` with "a" or "an" by its sound, as far as the tables need it."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(_SPOKEN_CONSONANT)
    return f"{'an' if vowel or noun.startswith(_SPOKEN_VOWEL) else 'a'} {noun}"


def plural(noun: str) -> str:
    """The regular plural of a class name such as "antibody" or "statin"."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("bacterium"):
        return noun[:-2] + "a"
    irregular = {"coccus": "cocci", "fungus": "fungi", "virus": "viruses"}
    for one, many in irregular.items():
        if noun.endswith(one):
            return noun[: -len(one)] + many
    return noun + "s"


def definite(noun: str) -> str:
    """``noun`` with "the" where it is a structure with a common name, not an enzyme used as a proper name."""
    return f"the {noun}" if noun.rsplit(" ", 1)[-1] in _DEFINITE_HEADS else noun


_PREPOSITION = re.compile(r" (?:of|on|in|into|with|without|before) ")
_SINGULAR = ("ss", "us", "is", "diabetes", "shingles")
_AGREEMENT = {
    "is": "are",
    "was": "were",
    "has": "have",
    "suggests": "suggest",
    "points": "point",
    "leads": "lead",
    "helps": "help",
    "gives": "give",
    "develops": "develop",
    "occurs": "occur",
    "appears": "appear",
    "explains": "explain",
}


def is_plural(noun: str) -> bool:
    """Whether an attribute such as "ash-leaf spots" or "attacks of abdominal pain" takes a verb in the plural."""
    head = _PREPOSITION.split(noun, maxsplit=1)[0]
    return head.endswith("feet") or (head.endswith("s") and not head.endswith(_SINGULAR))


@cache
def _verb_after(noun: str) -> re.Pattern[str] | None:
    """Finds the verb whose subject is ``noun``; None for singular nouns, whose verbs are right as written."""
    if not is_plural(noun):
        return None
    return re.compile(rf"(?<={re.escape(noun)} )(that )?({'|'.join([*_AGREEMENT, 'begins', 'starts'])})\b")


def _agree(match: re.Match[str]) -> str:
    return (match[1] or "") + _AGREEMENT.get(match[2], match[2].removesuffix("s"))


def fill(form: Form, draw: Draw, subject: str = "", value: str = "") -> str:
    """Writes a form out: every choice made by ``draw`` (uniform in [0, 1)), every slot replaced."""
    text = "".join([part if type(part) is str else part[int(draw() * len(part))] for part in form])
    if "<" in text:
        text = text.replace("<S>", subject).replace("<V>", value)
        if "<" in text:
            if "<aV>" in text:
                text = text.replace("<aV>", article(value))
            if "<Vs>" in text:
                text = text.replace("<Vs>", plural(value))
            if "<tV>" in text:
                text = text.replace("<tV>", definite(value))
            while "<N>" in text:
                text = text.replace("<N>", str(2 + int(draw() * 95)), 1)
        verb = _verb_after(value) if value else None
        if verb:
            text = verb.sub(_agree, text)
    return text


def sentence(clause: str, end: str = ".") -> str:
    """``clause`` with a capital first letter and a full stop."""
    return clause[0].upper() + clause[1:] + end
