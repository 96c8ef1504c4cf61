"""Finds telephone numbers: international ones of every country, and national ones of the countries that are named.

International is a plus with 8 to 15 digits in any grouping (E.164) and of any script, or `00` or `011` with the country
code in a group of its own. Behind a label such as `Tel:` any 8 to 15 digits are one. What could as well be an amount, a
decimal number or a coordinate (`+48 600 123 456`, `+4820794609`, `+48.600123456`) is a telephone number only if it has
as many digits as the country's numbers have; dates are none. National forms need a gap between their digits. An
extension behind a number belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

PhoneCountry = Literal[
    "AT", "AU", "BE", "BR", "CA", "CH", "CN", "DE", "ES", "FI", "FR", "GB", "IE", "IN", "IT", "JP", "KR", "NL", "NZ",
    "PL", "PT", "SE", "TR", "US", "ZA",
]  # fmt: skip
"""Countries whose national forms are known (ISO 3166). US and CA share one."""

_NATIONAL: dict[str, str] = {
    "AT": "0[1-9][0-9]{6,11}",
    "AU": "0[2-478][0-9]{8}|1[38]00[0-9]{6}",
    "BE": "0[1-9][0-9]{7,8}",
    "BR": "0?[1-9]{2}(?:9[0-9]{8}|[2-5][0-9]{7})",
    "CH": "0[1-9][0-9]{8}",
    "CN": "1[3-9][0-9]{9}|0[1-9][0-9]{1,2}[2-9][0-9]{6,7}",
    "DE": "0[1-9][0-9]{6,11}",
    "ES": "[6-9][0-9]{8}",
    "FI": "0[1-9][0-9]{5,10}",
    "FR": "0[1-9][0-9]{8}",
    "GB": "0[1-9][0-9]{8,9}",
    "IE": "0[1-9][0-9]{6,9}",
    "IN": "0?[6-9][0-9]{9}|0[1-9][0-9]{9}",
    "IT": "0[1-9][0-9]{6,9}|3[0-9]{8,9}",
    "JP": "0[1-9][0-9]{8,9}",
    "KR": "0[1-9][0-9]{7,9}",
    "NL": "0[1-9][0-9]{8}",
    "NZ": "0[2-9][0-9]{7,9}",
    "PL": "[1-9][0-9]{8}",
    "PT": "[29][0-9]{8}",
    "SE": "0[1-9][0-9]{6,9}",
    "TR": "0?[2-5][0-9]{9}",
    "ZA": "0[1-8][0-9]{8}",
}
"""Digits of national numbers, with the 0 that is dialled before them where there is one."""

_PLANS: dict[str, range] = {
    code: range(int(least), int(most or least) + 1)
    for code, least, most in re.findall(
        r"(\d+):(\d+)-?(\d*)",
        """
        1:10 7:10 20:8-10 27:9 30:10 31:9 32:8-9 33:9 34:9 36:8-9 39:8-11 40:9 41:9 43:7-13 44:9-10 45:8 46:7-10 47:8
        48:9 49:7-13 51:8-9 52:10-11 53:8 54:10-11 55:10-11 56:8-9 57:8-10 58:10 60:8-10 61:9 62:8-12 63:8-10 64:8-10
        65:8 66:8-9 81:9-10 82:8-11 84:9-10 86:10-12 90:10 91:10 92:9-10 93:9 94:9 95:7-10 98:10
        211:9 212:9 213:8-9 216:8 218:8-9 220:7 221:9 222:8 223:8 224:8-9 225:8-10 226:8 227:8 228:8 229:8-10 230:7-8
        231:7-9 232:8 233:9 234:8-10 235:8 236:8 237:8-9 238:7 239:7 240:9 241:7-8 242:9 243:9 244:9 245:7-9 246:7
        247:5 248:7 249:9 250:9 251:9 252:7-9 253:8 254:9 255:9 256:9 257:8 258:8-9 260:9 261:9 262:9 263:8-9 264:8-9
        265:7-9 266:8 267:7-8 268:7-8 269:7 290:5 291:7 297:7 298:6 299:6
        350:8 351:9 352:6-11 353:7-9 354:7-9 355:8-9 356:8 357:8 358:6-11 359:7-9 370:8 371:8 372:7-8 373:8 374:8 375:9
        376:6-9 377:8-9 378:6-10 379:8-10 380:9 381:8-9 382:8 383:8 385:8-9 386:8 387:8-9 389:8 420:9 421:9 423:7-9
        500:5 501:7 502:8 503:8 504:8 505:8 506:8 507:7-8 508:6 509:8 590:9 591:8 592:7 593:8-9 594:9 595:8-9 596:9
        597:6-7 598:8 599:7-8 670:7-8 672:6 673:7 674:7 675:7-8 676:5-7 677:5-7 678:5-7 679:7 680:7 681:6 682:5 683:4
        685:5-7 686:8 687:6 688:5-6 689:6-8 690:4-7 691:7 692:7 800:8 808:8 850:8-10 852:8 853:8 855:8-9 856:8-10 870:9
        878:10 880:8-10 881:8 882:7-12 883:7-12 886:8-9 888:8 960:7 961:7-8 962:8-9 963:8-9 964:8-10 965:8 966:8-9
        967:7-9 968:8 970:8-9 971:8-9 972:8-9 973:8 974:8 975:7-8 976:8 977:8-10 979:9 992:9 993:8 994:9 995:9 996:9
        998:9
        """,
    )
}
"""Country codes in use (ITU-T E.164), and how many digits follow them."""

_BEGIN_WITH_ZERO = {"39", "225", "229", "241", "242", "378", "379"}
"""Countries whose numbers may begin with 0 after the country code."""

_SPACE = r" \u00a0\u1680\u2000-\u200b\u202f\u205f\u2060\u3000"
_HYPHEN = r"\-\u00ad\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_OPEN, _CLOSE = r"(\uff08", r")\uff09"
_GAP = (
    rf"(?:[{_SPACE}]{{0,2}}[{_OPEN}][{_SPACE}]?|[{_SPACE}]?[{_CLOSE}][{_SPACE}{_HYPHEN}/]?(?:[{_OPEN}])?"
    rf"|[{_SPACE}][{_HYPHEN}/][{_SPACE}]|[{_SPACE}]{{1,2}}|[{_HYPHEN}./])?"
)
"""What may stand between two digits of a number: one or two spaces, a hyphen, full stop or slash, or brackets."""

_NORTH_AMERICAN = (
    rf"(?<![\w.+-])(?:"
    rf"(?:1[{_HYPHEN}.{_SPACE}]?)?[{_OPEN}][2-9][0-9]{{2}}[{_CLOSE}][{_SPACE}]?[2-9][0-9]{{2}}[{_HYPHEN}.{_SPACE}]"
    rf"|(?:1[{_HYPHEN}.{_SPACE}]?)?[2-9][0-9]{{2}}(?P<gap>[{_HYPHEN}.])[2-9][0-9]{{2}}(?P=gap)"
    rf"|1(?P<first>[{_SPACE}])[2-9][0-9]{{2}}(?P=first)[2-9][0-9]{{2}}(?P=first)"
    rf"|(?<![0-9][{_SPACE}])(?![2-4]00|[0-9]9)[2-9][0-9]{{2}}(?P<space>[{_SPACE}])[2-9][0-9]{{2}}(?P=space)"
    rf"|[2-9][0-9]{{2}}/[2-9][0-9]{{2}}[/{_HYPHEN}]"
    r")[0-9]{4}"
)
"""Both gaps are alike, except behind brackets and slashes: `200-300 2010` is a range and a year."""
_LABEL_WORDS = ("Tel", "T\u00e9l", "Telephone", "Telefon", "Phone", "Fax", "Mobile", "Mob", "Handy", "WhatsApp")
_LABEL = re.compile(
    rf"(?<!\w)(?:(?:{'|'.join(_LABEL_WORDS)})(?: (?:number|no\.?|nr\.?))?[.:]{{0,2}}|Cell(?: phone)?:)"
    rf"[{_SPACE}]{{0,2}}[{_OPEN}]?$",
    re.I,
)
"""What makes any 8 to 15 digits behind it a telephone number. `Cell` needs its colon: it is a journal, too."""
_OTHER_LABEL = re.compile(rf"(?<!\w)(?:ISBN|ISSN|NDC|PMID|DOI|EudraCT)(?:-1[03])?[:.#{_SPACE}]{{0,3}}$", re.I)
_LABEL_REACH = 28
"""Characters of the longest label."""
_BEHIND_LABEL = "|".join(f"(?<={word})" for word in _LABEL_WORDS)

_PLUS = (
    rf"(?:(?<![\w+])|{_BEHIND_LABEL})(?:[{_OPEN}](?=[+\uff0b]\d{{1,3}}[{_CLOSE}]))?"
    rf"[+\uff0b] ?(?=[{_OPEN}]?\d)(?:{_GAP}\d){{8,22}}"
)
_ZEROS = rf"(?<![\w.+/-])(?:00[{_SPACE}]?|011[{_SPACE}{_HYPHEN}])(?=[1-9])(?:{_GAP}[0-9]){{8,22}}"
_MANY_DIGITS = rf"(?<![0-9])[{_OPEN}]?[0-9](?:{_GAP}[0-9]){{7,14}}"
_ANY_NATIONAL = (
    rf"(?<![\w.,+/:-])(?<![0-9][{_SPACE}])(?<![0-9][{_CLOSE}])(?<![0-9][{_CLOSE}][{_SPACE}])"
    rf"[{_OPEN}]?[0-9](?:{_GAP}[0-9]){{7,14}}"
)

_EXTENSION = re.compile(
    rf"(?:[,;]?[{_SPACE}]{{0,2}}ext(?:ension)?\.?[{_SPACE}:=]{{0,2}}[0-9]{{1,6}}|x[0-9]{{1,6}}|[{_SPACE}]x[0-9]{{3,6}})(?!\w)",
    re.I,
)
"""What follows a space and an x is an extension from three digits on: `x3 daily` and `x 2 tablets` are doses."""
_DIGITS = re.compile(r"\d+")
_TRUNK_ZERO = re.compile(rf"[{_OPEN}]0[{_CLOSE}]")
_OPENS, _CLOSES = re.compile(f"[{_OPEN}]"), re.compile(f"[{_CLOSE}]")
_SPACES = re.compile(rf"[{_SPACE}]+")
_SPACED_HYPHEN = re.compile(rf"[{_SPACE}][{_HYPHEN}][{_SPACE}]")
_DECIMAL = re.compile(r"\d+\.\d+")
_EPP_DIGITS = 9
"""So many digits behind `+44.` are a telephone number, as domain registries write it; fewer are decimals."""
_THOUSANDS = re.compile(rf"\d{{1,3}}(?:[{_SPACE}]\d{{3}})+|\d{{1,3}}(?:\.\d{{3}})+")
_SERIES = range(0, 200, 5)
"""Where the last three groups rise and are of these, they are points in time or doses (`+30 10 20 30 40 50`)."""
_WHOLE_DIGITS = 6
"""A group of so many digits ends a number that fits its country; what follows behind a space is another number."""
_DATE = re.compile(r"\d{4}([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2\d{4}")


class PhoneSearch:
    """The pattern that finds what may be a telephone number, and the verdict on each: `end_of`."""

    def __init__(self, countries: Iterable[PhoneCountry]):
        named = set(countries)
        forms = [f"(?P<plus>{_PLUS})"]
        if named & {"US", "CA"}:
            forms.append(f"(?P<american>(?:{_NORTH_AMERICAN})(?:(?![\\w{_HYPHEN}]|\\.[0-9])|(?=x[0-9])))")
        digits = [_NATIONAL[country] for country in sorted(named & _NATIONAL.keys())]
        self.has_national = bool(digits)
        """Whether other national forms than the North American one are searched."""
        self._any_national = re.compile(_ANY_NATIONAL)
        self._national = re.compile("|".join(digits) or "(?!)")
        forms += [f"(?P<zeros>{_ZEROS})", f"(?P<digits>{_MANY_DIGITS})"]
        # Looking at one character first makes the search ten times as fast as trying each form at each place.
        self.pattern = re.compile(rf"(?=[+\uff0b0-9{_OPEN}])(?:{'|'.join(forms)})")

    def end_of(self, match: re.Match[str]) -> int:
        """End of the telephone number that begins with a match of the pattern; -1 if it is none."""
        form = match.lastgroup
        if form == "plus":
            end = _international_end(match)
        elif form == "american":
            end = -1 if _is_labelled(match, _OTHER_LABEL) else match.end()
        else:
            end = self._domestic_end(match)
        if end < 0:
            return -1
        extension = _EXTENSION.match(match.string, end)
        return extension.end() if extension else end

    def _domestic_end(self, match: re.Match[str]) -> int:
        """The end of a number behind `00`, of one behind a label, or of one in a national form."""
        written = ((end, match.string[match.start() : end]) for end in _ends(match))
        if _is_labelled(match, _OTHER_LABEL):
            return -1
        if _is_labelled(match, _LABEL):
            return next(
                (end for end, number in written if not _DATE.match(number) and 8 <= len(_digits(number)) <= 15), -1
            )
        is_after_zeros = match.lastgroup == "zeros"
        is_national = self._any_national.match(match.string, match.start()) is not None
        return next(
            (
                end
                for end, number in written
                if (is_after_zeros and _is_after_zeros(number)) or (is_national and self._is_national(number))
            ),
            -1,
        )

    def _is_national(self, written: str) -> bool:
        if _DATE.fullmatch(written) or written.isdecimal() or written.startswith("0."):
            return False
        if _SPACED_HYPHEN.search(written) or "000" in _DIGITS.findall(written):
            return False
        return self._national.fullmatch(_digits(written)) is not None


def _is_labelled(match: re.Match[str], label: re.Pattern[str]) -> bool:
    """Whether a label stands directly before a number."""
    return label.search(match.string, max(0, match.start() - _LABEL_REACH), match.start()) is not None


def _ends(match: re.Match[str]) -> Iterator[int]:
    """Where a number may end: behind each of its groups of digits that is whole, the longest first.

    Ends beyond a long group and a space come last.
    """
    text = match.string
    groups = list(_DIGITS.finditer(text, match.start(), match.end()))
    first = len(groups)
    for n in range(1, len(groups) - 1):
        if len(groups[n][0]) >= _WHOLE_DIGITS and _SPACES.fullmatch(text, groups[n].end(), groups[n + 1].start()):
            first = n + 1
            break
    for group in [*reversed(groups[:first]), *reversed(groups[first:])]:
        end = group.end()
        after, next_one = text[end : end + 1], text[end + 1 : end + 2]
        cut = after.isalnum() or after in ("_", "%") or (after in (".", ",") and next_one.isdecimal())
        written = text[match.start() : end]
        is_open = len(_OPENS.findall(written)) > len(_CLOSES.findall(written))
        if not is_open and (not cut or _EXTENSION.match(text, end)):
            yield end


def _international_end(match: re.Match[str]) -> int:
    """The longest end that suits the country, else the longest that E.164 allows."""
    allowed = -1
    for end in _ends(match):
        written = match.string[match.start() : end].lstrip("(\uff08+\uff0b")
        suits = _suits_country(written)
        if written.startswith(" ") and not (suits and _DIGITS.findall(written)[0] in _PLANS):
            continue  # Sums are written with a space, too.
        if suits:
            return end
        if suits is None and allowed < 0:
            allowed = end
    return allowed


def _suits_country(written: str) -> bool | None:
    """Whether what follows a plus is a number as its country has them; None where it is not, but may be one."""
    written = _TRUNK_ZERO.sub("", written).strip()
    digits = _digits(written)
    code = _country_code(digits)
    if not 8 <= len(digits) <= 15 or code is None or _DATE.fullmatch(written) or _is_series(written):
        return False
    national = digits[len(code) :]
    fits = len(national) in _PLANS[code]
    if code == "1":
        return fits and national[0] in "23456789"
    parts = _SPACES.split(written)
    if all(map(_DECIMAL.fullmatch, parts)):
        return fits and len(parts) == 1 and written.startswith(f"{code}.") and len(national) >= _EPP_DIGITS
    if written.isdecimal() or _THOUSANDS.fullmatch(written):
        separate = written.isdecimal() or _digits(_DIGITS.findall(written)[0]) == code
        return fits and separate and (national[0] != "0" or code in _BEGIN_WITH_ZERO)
    return True if fits else None


def _is_after_zeros(written: str) -> bool:
    """Whether `00` begins a number as its country has them, with the country code in a group of its own."""
    groups = _DIGITS.findall(_TRUNK_ZERO.sub("", written.removeprefix("011").removeprefix("00")))
    code, national = "".join(groups[:1]), "".join(groups[1:])
    if code not in _PLANS or len(national) not in _PLANS[code] or _is_series(written):
        return False
    return national[0] in "23456789" if code == "1" else national[0] != "0" or code in _BEGIN_WITH_ZERO


def _is_series(written: str) -> bool:
    """Whether the groups behind the country code rise in round steps, which those of a telephone number hardly do."""
    last = [int(group) for group in _DIGITS.findall(written)[1:]][-3:]
    return len(last) == 3 and last == sorted(set(last)) and all(number in _SERIES for number in last)


def _country_code(digits: str) -> str | None:
    return next((digits[:n] for n in (1, 2, 3) if digits[:n] in _PLANS), None)


def _digits(written: str) -> str:
    """The digits of a number, of any script, as ASCII."""
    return "".join(str(int(character)) for character in written if character.isdecimal())
