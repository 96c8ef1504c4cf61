"""Assembles a financial company's own documents and public ones.

Own data after BloombergGPT's FinPile (Wu et al. 2023, arXiv 2303.17564, section 2): filings, press releases, news
wires and transcripts of calls, about companies that do not exist. Public data: encyclopaedia pages, and questions with
answers, about countries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from stages.sample.document import Document
from stages.sample.finance import phrases
from stages.sample.finance.figures import quarters
from stages.sample.finance.forms import BACKWARD, FORWARD, STATEMENTS
from stages.sample.finance.tables import COMPANIES, COUNTRIES
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
"""Each source's share of the text. The training mixture is the recipe's."""

REFERENCES = {
    "companies": ("the company", "the group", "the issuer"),
    "countries": ("the country", "this state", "the land"),
}
"""What a sentence may call the entity of the sentence before."""

COMPANY_DOMAIN = Domain(
    tables=COMPANIES,
    statements=STATEMENTS,
    references=REFERENCES,
    forward=FORWARD,
    backward=BACKWARD,
    openers=phrases.CALL_OPENERS,
    attributions=phrases.ATTRIBUTIONS,
    remarks=phrases.REMARKS,
)
"""What the company's own sources are about."""

COUNTRY_DOMAIN = Domain(
    tables=COUNTRIES,
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
    """What both authors share: a text is an opening, facts about its focus, and facts about others up to its length."""

    def _text(
        self,
        focus: Entity,
        openings: tuple[Form, ...],
        body: Iterable[str],
        more: Callable[[Entity, set[str]], Iterable[str]],
    ) -> str:
        """Paragraphs until the text is long enough: `body` first, then what `more(focus, names so far)` returns."""
        seen, goal = {focus.name}, self._target_length()
        paragraphs = [" ".join([sentence(self._phrase(openings, focus.name)), *body])]
        size = len(paragraphs[0])
        while size < goal:
            paragraphs.append(" ".join(more(focus, seen)))
            size += len(paragraphs[-1])
        return "\n\n".join(paragraphs)

    def _attributed_statements(self, entity: Entity, most: int, rate: float = 0.2) -> Iterator[str]:
        """Statements, some of them attributed to somebody."""
        return self._statements(entity, most, self._domain.attributions, rate)

    def _introduction(self, focus: Entity, seen: set[str]) -> tuple[Entity, list[str]]:
        """Another entity and, while there are unused forms, a sentence that introduces it."""
        other = self._companion(focus, seen)
        turns = phrases.TURNS[other.table]
        return other, [] if self._all_used(turns) else [sentence(self._phrase(turns, other.name))]

    def _questions_and_answers(self, focus: Entity, goal: int) -> list[str]:
        """Questions with answers about the focus, then about others, until they have `goal` characters."""
        seen, size = {focus.name}, 0
        about, asked = focus, self._facts(focus, 4)
        pairs: list[str] = []
        while size < goal:
            if not asked:
                about = self._companion(focus, seen)
                asked = self._facts(about, 2)
            pairs.append(self._question_and_answer(about, asked.pop()))
            size += len(pairs[-1])
        return pairs


class CompanyAuthor(_Author):
    """Writes what is said about companies: by themselves, by the press, and on calls."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, COMPANY_DOMAIN)

    def write(self, source: str) -> Document:
        """A new clean document of one of `OWN`, or of the vendor's feed."""
        focus = self._focus(source)
        self._start_document()
        make, title = {
            "synthetic_filings": (self._filing, "a synthetic filing"),
            "synthetic_releases": (self._release, "a synthetic press release"),
            "synthetic_wires": (self._wire, "a synthetic news wire"),
            "synthetic_calls": (self._call, "a synthetic transcript"),
            DENIED: (self._wire, "a synthetic feed item"),
        }[source]
        return Document(source, make(focus), f"{focus.name}: {title}", focus.name)

    def _filing(self, focus: Entity) -> str:
        body = [*self._attributed_statements(focus, 5), self._result(focus)]
        text = self._text(focus, phrases.FILING_OPENINGS, body, self._peer_paragraph)
        return f"{text} {sentence(self._phrase(phrases.CLOSINGS, focus.name))}"

    def _release(self, focus: Entity) -> str:
        body = [self._result(focus), *self._attributed_statements(focus, 4, 0.3)]
        text = self._text(focus, phrases.RELEASE_OPENINGS, body, self._paragraph)
        return f"{text} {sentence(self._phrase(phrases.CLOSINGS, focus.name))}"

    def _wire(self, focus: Entity) -> str:
        body = [*self._attributed_statements(focus, 3, 0.5), self._result(focus)]
        return self._text(focus, phrases.WIRE_OPENINGS, body, self._peer_paragraph)

    def _call(self, focus: Entity) -> str:
        opening = sentence(self._phrase(phrases.CALL_OPENINGS, focus.name))
        report = f"{focus.get('chief_executive')}: {self._result(focus)} {self._result(focus)}"
        return "\n\n".join([opening, report, *self._questions_and_answers(focus, self._target_length())])

    def _peer_paragraph(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        other, turn = self._introduction(focus, seen)
        return [*turn, *self._attributed_statements(other, 3), self._result(other), *self._remarks(1)]

    def _paragraph(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        if self._draw() < 0.4:
            return [*self._attributed_statements(focus, 2), *self._remarks(2)]
        return [self._result(focus), *self._remarks(1), self._contrast(focus, seen)]

    def _result(self, company: Entity) -> str:
        """One sentence about a quarter of the company."""
        quarter = self._rng.choice(quarters(company.name))
        text = self._phrase(phrases.RESULTS, self._subject(company))
        for slot, value in quarter.slots().items():
            text = text.replace(slot, value)
        return sentence(text)


class CountryAuthor(_Author):
    """Writes public texts about countries."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, COUNTRY_DOMAIN)

    def write(self, source: str) -> Document:
        """A new clean document of one of `PUBLIC`."""
        focus = self._focus(source)
        self._start_document()
        if source == "synthetic_encyclopedia":
            return Document(source, self._page(focus), f"{focus.name}: a synthetic page", focus.name)
        answers = "\n\n".join(self._questions_and_answers(focus, self._target_length()))
        return Document(source, answers, f"{focus.name}: synthetic answers", focus.name)

    def _page(self, focus: Entity) -> str:
        body = [*self._attributed_statements(focus, 4), *self._remarks(2)]
        text = self._text(focus, phrases.PAGE_OPENINGS, body, self._paragraph)
        return f"{text} {sentence(self._phrase(phrases.PAGE_CLOSINGS, focus.name))}"

    def _paragraph(self, focus: Entity, seen: set[str]) -> Iterable[str]:
        if self._draw() < 0.2:
            return [*self._attributed_statements(focus, 2, 0.3), *self._remarks(2)]
        other, turn = self._introduction(focus, seen)
        contrast = [self._contrast(focus, seen)] if self._draw() < 0.4 else []
        return [*turn, *self._attributed_statements(other, 3), *contrast, *self._remarks(1)]
