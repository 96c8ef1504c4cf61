"""Assembles a financial company's own documents and public ones.

Own data after BloombergGPT's FinPile (Wu et al. 2023, arXiv 2303.17564, section 2): filings, press releases, news
wires and transcripts of calls, about companies that do not exist. Public data: encyclopaedia pages, and questions with
answers, about countries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from stages.sample.biomed.documents import Document
from stages.sample.finance import phrases
from stages.sample.finance.figures import quarters
from stages.sample.finance.forms import BACKWARD, FORWARD, STATEMENTS
from stages.sample.forms import Form, sentence
from stages.sample.prose import Domain, Prose
from stages.sample.tables import Entity

OWN = ("synthetic_filings", "synthetic_releases", "synthetic_wires", "synthetic_calls")
"""The company's own sources, with licences of its own or none needed."""

PUBLIC = ("synthetic_encyclopedia", "synthetic_answers")
"""The public sources."""

DENIED = "synthetic_feed"
"""A data vendor's feed, which a recipe's policy denies."""

LICENSES = {
    "synthetic_filings": "CC0-1.0",
    "synthetic_releases": "LicenseRef-own",
    "synthetic_wires": "LicenseRef-own",
    "synthetic_calls": "LicenseRef-own",
    "synthetic_encyclopedia": "CC-BY-SA-4.0",
    "synthetic_answers": "CC-BY-4.0",
    DENIED: "LicenseRef-proprietary",
}
"""Each source's licence."""

SHARES = {
    "synthetic_filings": 0.20,
    "synthetic_releases": 0.11,
    "synthetic_wires": 0.14,
    "synthetic_calls": 0.12,
    "synthetic_encyclopedia": 0.21,
    "synthetic_answers": 0.16,
    DENIED: 0.06,
}
"""Each source's part of the text. The mixture that is trained on is the recipe's, not this."""

TABLES = ("companies", "countries")
"""The fact tables."""

REFERENCES = {
    "companies": ("the company", "the group", "the issuer"),
    "countries": ("the country", "this state", "the land"),
}
"""What a sentence may call the entity of the sentence before."""

COMPANIES = Domain(
    tables=("companies",),
    statements=STATEMENTS,
    references=REFERENCES,
    forward=FORWARD,
    backward=BACKWARD,
    openers=phrases.CALL_OPENERS,
    attributions=phrases.ATTRIBUTIONS,
    remarks=phrases.REMARKS,
)
"""What the company's own sources are about."""

COUNTRIES = Domain(
    tables=("countries",),
    statements=STATEMENTS,
    references=REFERENCES,
    forward=FORWARD,
    backward=BACKWARD,
    openers=phrases.OPENERS,
    attributions=phrases.PAGE_ATTRIBUTIONS,
    remarks=phrases.PAGE_REMARKS,
)
"""What the public sources are about."""


class _Author(Prose):
    """What both authors do: a text is an opening, what its focus is about, and as much on others as there is room."""

    def _text(
        self,
        focus: Entity,
        openings: tuple[Form, ...],
        body: Iterable[str],
        more: Callable[[Entity, set[str]], Iterable[str]],
    ) -> str:
        """Paragraphs until the text is long enough: `body` the first, then what `more(focus, names so far)` gives."""
        seen, goal = {focus.name}, self._length()
        paragraphs = [" ".join([sentence(self._plain(openings, focus.name)), *body])]
        size = len(paragraphs[0])
        while size < goal:
            paragraphs.append(" ".join(more(focus, seen)))
            size += len(paragraphs[-1])
        return "\n\n".join(paragraphs)

    def _said(self, entity: Entity, most: int, rate: float = 0.2) -> Iterator[str]:
        """Statements, some of them attributed to somebody."""
        return self._stated(entity, most, self._domain.attributions, rate)

    def _turn(self, focus: Entity, seen: set[str]) -> tuple[Entity, list[str]]:
        """Another entity and, while there are forms left, the sentence that brings it in."""
        other = self._companion(focus, seen)
        turns = phrases.TURNS[other.table]
        return other, [] if self._spent(turns) else [sentence(self._plain(turns, other.name))]

    def _pairs(self, focus: Entity, goal: int) -> list[str]:
        """Questions with answers about the focus, then about others, until they have `goal` characters."""
        seen, size = {focus.name}, 0
        about, asked = focus, self._facts(focus, 4)
        pairs: list[str] = []
        while size < goal:
            if not asked:
                about = self._companion(focus, seen)
                asked = self._facts(about, 2)
            pairs.append(self._pair(about, asked.pop()))
            size += len(pairs[-1])
        return pairs


class CompanyAuthor(_Author):
    """Writes what is said about companies: by themselves, by the press, and on calls."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, COMPANIES)

    def write(self, source: str) -> Document:
        """A new clean document of one of `OWN`, or of the vendor's feed."""
        focus = self._focus(source, COMPANIES.tables)
        self._begin()
        make, title = {
            "synthetic_filings": (self._filing, "a synthetic filing"),
            "synthetic_releases": (self._release, "a synthetic press release"),
            "synthetic_wires": (self._wire, "a synthetic news wire"),
            "synthetic_calls": (self._call, "a synthetic transcript"),
            DENIED: (self._wire, "a synthetic feed item"),
        }[source]
        return Document(source, make(focus), f"{focus.name}: {title}", focus.name)

    def _filing(self, focus: Entity) -> str:
        body = [*self._said(focus, 5), self._result(focus)]
        text = self._text(focus, phrases.FILING_OPENINGS, body, self._peer)
        return f"{text} {sentence(self._plain(phrases.CLOSINGS, focus.name))}"

    def _release(self, focus: Entity) -> str:
        body = [self._result(focus), *self._said(focus, 4, 0.3)]
        text = self._text(focus, phrases.RELEASE_OPENINGS, body, self._more)
        return f"{text} {sentence(self._plain(phrases.CLOSINGS, focus.name))}"

    def _wire(self, focus: Entity) -> str:
        body = [*self._said(focus, 3, 0.5), self._result(focus)]
        return self._text(focus, phrases.WIRE_OPENINGS, body, self._peer)

    def _call(self, focus: Entity) -> str:
        opening = sentence(self._plain(phrases.CALL_OPENINGS, focus.name))
        report = f"{focus.get('chief_executive')}: {self._result(focus)} {self._result(focus)}"
        return "\n\n".join([opening, report, *self._pairs(focus, self._length())])

    def _peer(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        other, turn = self._turn(focus, seen)
        return [*turn, *self._said(other, 3), self._result(other), *self._remarks(1)]

    def _more(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        if self._draw() < 0.4:
            return [*self._said(focus, 2), *self._remarks(2)]
        return [self._result(focus), *self._remarks(1), self._contrast(focus, seen)]

    def _result(self, company: Entity) -> str:
        """One sentence about a quarter of the company."""
        quarter = self._rng.choice(quarters(company.name))
        text = self._plain(phrases.RESULTS, self._subject(company))
        for slot, value in quarter.slots().items():
            text = text.replace(slot, value)
        return sentence(text)


class CountryAuthor(_Author):
    """Writes what anybody may read about countries."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, COUNTRIES)

    def write(self, source: str) -> Document:
        """A new clean document of one of `PUBLIC`."""
        focus = self._focus(source, COUNTRIES.tables)
        self._begin()
        if source == "synthetic_encyclopedia":
            return Document(source, self._page(focus), f"{focus.name}: a synthetic page", focus.name)
        answers = "\n\n".join(self._pairs(focus, self._length()))
        return Document(source, answers, f"{focus.name}: synthetic answers", focus.name)

    def _page(self, focus: Entity) -> str:
        body = [*self._said(focus, 4), *self._remarks(2)]
        text = self._text(focus, phrases.PAGE_OPENINGS, body, self._more)
        return f"{text} {sentence(self._plain(phrases.PAGE_CLOSINGS, focus.name))}"

    def _more(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        if self._draw() < 0.2:
            return [*self._said(focus, 2, 0.3), *self._remarks(2)]
        other, turn = self._turn(focus, seen)
        contrast = [self._contrast(focus, seen)] if self._draw() < 0.4 else []
        return [*turn, *self._said(other, 3), *contrast, *self._remarks(1)]
