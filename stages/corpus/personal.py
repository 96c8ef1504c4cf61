"""Finds personal data and masks, tags or drops it. Patterns are narrow, since medical text is full of numbers.

Found are: e-mail addresses; telephone numbers in international form, and in the national forms of countries that are
named (see `phones`); US social security numbers in dashed form; IPv4 addresses, and IPv6 addresses of the ranges that
are in use; medical record numbers that are labelled as such; IBANs (country, length and check digits); payment card
numbers (issuer, grouping and check digit).
Not found are: names, street addresses, dates of birth. A first octet below 8 is not taken for an address, because
enzyme numbers (EC 3.4.21.4) and versions look the same.

Hits are counted, never stored. A scan over all bytes (`personal_marks`) says which texts may hold which kinds; the
regular expressions search only those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import marks
from stages.corpus.kernels.marks import personal_marks
from stages.corpus.phones import PhoneCountry, PhoneSearch
from stages.corpus.policy import Removal
from stages.corpus.texts import Texts

_BEHIND, _AHEAD = 32, 1280
"""So many characters before and after the place where a match begins decide about it, at most: an e-mail address is the
longest. What is farther from a span that was found need not be searched again."""

_FILE_ENDING = r"(?:png|jpe?g|gif|svg|webp|tgz)\b"
"""What ends names of files that hold an @, such as `img@3x.jpeg`, and no host's name."""
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "email": re.compile(
        r"(?<!\w)\w[\w.+-]{0,63}"
        rf"(?:@(?:[A-Za-z0-9-]{{1,63}}\.){{1,8}}(?!{_FILE_ENDING})[A-Za-z]{{2,24}}){{1,2}}(?![\w@]|\.{_FILE_ENDING})"
    ),
    "iban": re.compile(r"(?<![\w-])[A-Z]{2}[0-9]{2}(?= ?[A-Z0-9])"),
    "card": re.compile(
        r"(?<![\w.+/=-])(?<![0-9] )(?:"
        r"[2-6][0-9]{12,18}"
        r"|[2-6][0-9]{3}(?P<gap>[ -])[0-9]{4}(?P=gap)[0-9]{4}(?P=gap)[0-9]{4}(?P<last>(?P=gap)[0-9]{3})?"
        r"|3[0-9]{3}(?P<space>[ -])[0-9]{6}(?P=space)[0-9]{4,5}"
        r")(?![\w-]|\.[0-9]| [0-9]{4}(?![0-9]))"
    ),
    "mrn": re.compile(
        r"\b(?:MRN|(?i:medical record (?:number|no\.?|num\.?|\#)))(?:[\s:#-]{0,3}(?:is |was )?)"
        r"(?P<hit>[A-Z]{0,3}-?[0-9]{4,12})\b"
    ),
    "ssn": re.compile(r"(?<![\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])"),
    "ip": re.compile(
        rf"(?<![\w.-])(?<!EC )(?<!EC:)(?<!version )(?<!Version )"
        rf"(?:[89]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])(?:\.{_OCTET}){{3}}(?![\w-]|\.[0-9])"
        r"|(?<![\w:.-])[23Ff][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{0,33}(?:[0-9A-Fa-f]|::)(?!\w|:[0-9A-Fa-f:])"
    ),
}
"""Those of all kinds but telephone numbers. Digits are ASCII, letters at the edges are any. None matches a bracket, so
placeholders are never part of a match."""

_MARKS = {
    "email": marks.EMAIL,
    "iban": marks.IBAN,
    "card": marks.CARD,
    "mrn": marks.MRN,
    "ssn": marks.SSN,
    "phone": marks.PHONE,
    "ip": marks.IP,
}

KINDS = ("email", "iban", "card", "mrn", "ssn", "phone", "ip")
"""In the order in which they are searched: e-mail addresses before what could be found inside them."""
PLACEHOLDERS = {kind: f"[{kind.upper()}]" for kind in KINDS}

_IBAN_REGISTRY = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
_IBAN_LENGTHS = {code[:2]: int(code[2:]) for code in _IBAN_REGISTRY.split()}
"""Countries of the IBAN registry (ISO 13616) and the length of their account numbers."""

# Issuers by first digits, and the lengths of their numbers: Visa, Mastercard, American Express, Diners, Discover, JCB,
# UnionPay, Maestro.
_ISSUERS: list[tuple[re.Pattern[str], frozenset[int]]] = [
    (re.compile(r"4"), frozenset({13, 16, 19})),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset({16})),
    (re.compile(r"3[47]"), frozenset({15})),
    (re.compile(r"30[0-5]|3[689]"), frozenset({14, 16})),
    (re.compile(r"6011|64[4-9]|65"), frozenset({16, 19})),
    (re.compile(r"35(?:2[89]|[3-8])"), frozenset({16, 19})),
    (re.compile(r"62"), frozenset({16, 17, 18, 19})),
    (re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]"), frozenset({13, 14, 15, 16, 17, 18, 19})),
]


def _iban_end(match: re.Match[str]) -> int:
    """End of the IBAN that begins with a match; -1 if country, length or check digits (ISO 13616) are wrong."""
    length = _IBAN_LENGTHS.get(match[0][:2])
    if length is None:
        return -1
    text, place = match.string, match.start()
    found: list[str] = []
    while len(found) < length and place < len(text):
        character = text[place]
        if "0" <= character <= "9" or "A" <= character <= "Z":
            found.append(character)
        elif character != " " or text[place - 1] == " ":
            return -1
        place += 1
    if len(found) < length or (place < len(text) and (text[place].isalnum() or text[place] in "_-")):
        return -1
    number = "".join(str(int(character, 36)) for character in found[4:] + found[:4])
    return place if int(number) % 97 == 1 else -1


def _card_end(match: re.Match[str]) -> int:
    """End of the card number; -1 if no issuer has such numbers or the check digit (Luhn, ISO 7812) is wrong."""
    ends = [match.end()]
    if match["last"]:
        # The last three digits may be the code on the card's back, not part of the number.
        ends.append(match.start("last"))
    for end in ends:
        digits = re.sub("[^0-9]", "", match.string[match.start() : end])
        if any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUERS):
            total = sum(map(int, digits[-1::-2])) + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
            if total % 10 == 0:
                return end
    return -1


def _ip_end(match: re.Match[str]) -> int:
    """End of the address; -1 if it is no IPv6 address, or of a range that is not in use (RFC 4291, 4193)."""
    if "." in match[0]:
        return match.end()
    try:
        number = int(IPv6Address(match[0]))
    except AddressValueError:
        return -1
    used = number >> 125 == 1 or number >> 121 == 0x7E or number >> 118 == 0x3FA
    return match.end() if used else -1


def _any_end(match: re.Match[str]) -> int:
    return match.end()


_ENDS: dict[str, Callable[[re.Match[str]], int]] = {
    "iban": _iban_end,
    "card": _card_end,
    "ip": _ip_end,
}


@dataclass(frozen=True)
class Search:
    """How one kind is found: a pattern, and the end of what begins with a match of it, -1 if that is none."""

    pattern: re.Pattern[str]
    end_of: Callable[[re.Match[str]], int]
    group: str | int = 0
    """Where in the match the personal data begins."""


def make_searches(phones: PhoneSearch) -> dict[str, Search]:
    """The searches for all kinds, in their order."""
    patterns = _PATTERNS | {"phone": phones.pattern}
    ends = _ENDS | {"phone": phones.end_of}
    groups = {"mrn": "hit"}
    return {kind: Search(patterns[kind], ends.get(kind, _any_end), groups.get(kind, 0)) for kind in KINDS}


@dataclass(frozen=True)
class _Span:
    """A part of a text; `kind` is the kind of personal data that it is, empty for other text."""

    text: str
    kind: str = ""


def _split_by(text: str, kind: str, search: Search) -> list[_Span]:
    """A text as spans: those of one kind of personal data, and the text between them."""
    spans: list[_Span] = []
    done = place = 0
    while (match := search.pattern.search(text, place)) is not None:
        begin, end = match.start(search.group), search.end_of(match)
        if end < 0:
            place = begin + 1
            continue
        if begin > done:
            spans.append(_Span(text[done:begin]))
        spans.append(_Span(text[begin:end], kind))
        done = place = end
    if done < len(text) or not spans:
        spans.append(_Span(text[done:]))
    return spans


@dataclass(frozen=True)
class _Hit:
    begin: int
    end: int
    kind: str


def _first_hit(text: str, places: range, searches: Mapping[str, Search]) -> _Hit | None:
    """Personal data of the first kind for which a match begins at one of the places."""
    for kind, search in searches.items():
        place = places.start
        while (match := search.pattern.search(text, place)) is not None and match.start() < places.stop:
            if (end := search.end_of(match)) >= 0:
                return _Hit(match.start(search.group), end, kind)
            place = match.start() + 1
    return None


def _hit_at_edge(text: str, begin: int, end: int, searches: Mapping[str, Search]) -> _Hit | None:
    """Personal data in `text[begin:end]` that may be found only since the text beside it is known to be some."""
    head, tail = begin, max(begin, end - _AHEAD - _BEHIND)
    edges = [(head, range(min(_BEHIND, end - begin))), (tail, range(min(_BEHIND, tail - begin), end - tail))]
    for start, places in edges:
        hit = _first_hit(text[start : min(end, start + _AHEAD + _BEHIND)], places, searches)
        if hit is not None:
            return _Hit(start + hit.begin, start + hit.end, hit.kind)
    return None


def _split_at_edges(text: str, searches: Mapping[str, Search]) -> list[_Span]:
    """The text between two spans as spans, searched near them and near what is found there."""
    hits: list[_Hit] = []
    gaps = [(0, len(text))]
    while gaps:
        begin, end = gaps.pop()
        hit = _hit_at_edge(text, begin, end, searches)
        if hit is not None:
            hits.append(hit)
            gaps += [(begin, hit.begin), (hit.end, end)]
    spans: list[_Span] = []
    done = 0
    for hit in sorted(hits, key=lambda hit: hit.begin):
        spans += [_Span(text[done : hit.begin]), _Span(text[hit.begin : hit.end], hit.kind)]
        done = hit.end
    return [span for span in [*spans, _Span(text[done:])] if span.text]


def _spans(text: str, searches: Mapping[str, Search]) -> list[_Span]:
    """A text as spans of all kinds; each kind searches what earlier ones left, until no search finds more.

    A span bounds the text beside it just as its placeholder would, so a search of the masked text finds nothing more.
    """
    spans = [_Span(text)]
    for kind, search in searches.items():
        spans = [part for span in spans for part in ([span] if span.kind else _split_by(span.text, kind, search))]
    if len(spans) == 1:
        return spans
    return [part for span in spans for part in ([span] if span.kind else _split_at_edges(span.text, searches))]


def _counts(spans: list[_Span]) -> dict[str, int]:
    found = [span.kind for span in spans if span.kind]
    return {kind: found.count(kind) for kind in KINDS if kind in found}


@dataclass(frozen=True)
class PersonalFound:
    """What was found in a batch of texts, by row; without the data itself."""

    texts: Texts
    """The batch with masked spans replaced by placeholders."""
    changed: NDArray[np.bool_]
    """Texts in which something was masked, bool[n]."""
    removals: dict[int, Removal]
    """Texts with a kind whose action is `drop`."""
    tags: dict[int, list[str]]
    """Kinds found whose action is `tag`."""
    counts: dict[int, dict[str, int]]
    """Hits of each kind, whatever its action."""


class PersonalData:
    """Finds personal data of some kinds and applies the action of each: `mask`, `drop` or `tag` (`EditConfig`)."""

    def __init__(self, actions: Mapping[str, str], phone_countries: Iterable[PhoneCountry] = ("US",)):
        self.actions = dict(actions)
        phones = PhoneSearch(phone_countries)
        self._searches = {kind: search for kind, search in make_searches(phones).items() if kind in actions}
        national = marks.NATIONAL_PHONE if phones.has_national else 0
        self._marks = {kind: _MARKS[kind] | (national if kind == "phone" else 0) for kind in self._searches}

    def find(self, texts: Texts, rows_mask: NDArray[np.bool_] | None = None) -> PersonalFound:
        """Searches a batch, or those rows of it where `rows_mask` (bool[n]) is true."""
        searched = np.ones(len(texts), np.bool_) if rows_mask is None else rows_mask
        possible = personal_marks(texts.data, texts.offsets, searched)
        possible &= np.uint8(sum(self._marks.values()))
        edited: dict[int, bytes] = {}
        removals: dict[int, Removal] = {}
        tags: dict[int, list[str]] = {}
        counts: dict[int, dict[str, int]] = {}
        for row in np.flatnonzero(possible).tolist():
            mark = int(possible[row])
            spans = _spans(texts[row], {kind: one for kind, one in self._searches.items() if mark & self._marks[kind]})
            found = _counts(spans)
            if not found:
                continue
            counts[row] = found
            by_action = {
                action: {kind: number for kind, number in found.items() if self.actions[kind] == action}
                for action in ("mask", "drop", "tag")
            }
            if by_action["mask"]:
                masked = by_action["mask"]
                edited[row] = "".join(
                    PLACEHOLDERS[span.kind] if span.kind in masked else span.text for span in spans
                ).encode()
            if by_action["drop"]:
                detail = ", ".join(f"{number} {kind}" for kind, number in by_action["drop"].items())
                removals[row] = Removal("personal_data", float(sum(by_action["drop"].values())), 0.0, detail)
            if by_action["tag"]:
                tags[row] = list(by_action["tag"])
        changed = np.zeros(len(texts), np.bool_)
        changed[list(edited)] = True
        return PersonalFound(texts.replace(edited), changed, removals, tags, counts)
