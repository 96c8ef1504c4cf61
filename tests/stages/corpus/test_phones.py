"""Telephone numbers in the forms that people write, and numbers that only look like some."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.config import EditConfig
from stages.corpus.kernels.marks import NATIONAL_PHONE, PHONE, personal_marks
from stages.corpus.personal import PersonalData
from stages.corpus.phones import _NATIONAL, PhoneCountry, PhoneSearch
from stages.corpus.texts import Texts
from tests.support import examples

DEFAULT = PersonalData({"phone": "mask"})
COUNTRIES: tuple[PhoneCountry, ...] = get_args(PhoneCountry)

INTERNATIONAL = (
    """
+91 98765 43210|+86 13800138000|+48 600123456|+1 4155552671|+1 415 555 2671|+1-415-555-2671|+1.415.555.2671
+1 (415) 555-2671|+1(415)5552671|+14155552671|+44 20 7946 0958|+44 (0)20 7946 0958|+44(0)2079460958|(+44) 20 7946 0958
+(44) 20 7946 0958|+44-20-7946-0958|+44.20.7946.0958|+442079460958|+49 30 1234567|+49 (30) 1234567|+49/30/1234567
+49 30/1234567|+49 (0) 30 - 123 45 67|+49-30-12345-67|+33 1 23 45 67 89|+33 (0)1 23 45 67 89|+39 06 1234 5678
+39061234567|+34 612 345 678|+351 912 345 678|+31 6 12345678|+32 470 12 34 56|+41 44 668 18 00|+43 1 234567
+45 12 34 56 78|+46 8 123 456 78|+47 22 12 34 56|+358 40 1234567|+7 (495) 123-45-67|+7 495 123 45 67|+380 44 123 4567
+90 212 123 45 67|+972 3 123 4567|+971 50 123 4567|+966 50 123 4567|+20 2 12345678|+27 82 123 4567|+234 803 123 4567
+254 712 345678|+55 11 91234-5678|+52 55 1234 5678|+54 9 11 1234-5678|+56 9 1234 5678|+57 300 1234567|+61 2 1234 5678
+61 412 345 678|+64 21 123 456|+65 6123 4567|+60 12-345 6789|+62 812-3456-7890|+63 917 123 4567|+66 81 234 5678
+84 91 234 56 78|+81 3-1234-5678|+81-90-1234-5678|+82 10-1234-5678|+852 1234 5678|+886 2 1234 5678|+91-9876543210
+91 (98765) 43210|+86 138 0013 8000|+86-10-12345678|+353 (0) 86 123 4567|+354 123 4567|+420 123 456 789|+36 1 123 4567
+30 210 1234567|+40 21 123 4567|+380441234567|tel:+44-20-7946-0958|Tel.+49 30 1234567|+4 123 4567|+44  20  7946  0958
+48.600123456|+44.2079460958|+1.4155552671|+44 20 7946 0958 ext. 12|+44 20 7946 0958x12|+44 20 7946 0958, ext 12
tel:+1-201-555-0123;ext=12|+44 20 7946 0958 extension 1234
0044 20 7946 0958|00 44 20 7946 0958|0049 30 1234567|0049-30-1234567|0049 (0)30 1234567|001 415 555 2671
+ 49 30 901820|011 44 20 7946 0958|011-44-20-7946-0958
212 555 0187|415 555 2671|212/555-0187|212/555/0187|1 212 555 0187|(301) 555-0134 x123
(301) 555-0134 ext. 5|301-555-0134x5|1 (301) 555-0134
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

OTHER_SCRIPTS = [
    "\uff0b44 20 7946 0958", "\uff0b\uff14\uff14 \uff12\uff10 \uff17\uff19\uff14\uff16 \uff10\uff19\uff15\uff18",
    "+٤٤ ٢٠ ٧٩٤٦ ٠٩٥٨", "+۴۴ ۲۰ ۷۹۴۶ ۰۹۵۸", "+४४ २० ७९४६ ०९५८", "\u202a+44 20 7946 0958\u202c",
]  # fmt: skip
SPACES = "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u205f\u3000"
HYPHENS = "\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"

NO_PHONES = (
    """
take 2.5 mg/kg +10 mg|p = 0.00012345678, +0.12345678|doi:10.1000/182+12345678|PMID 12345678|ISBN +978-3-16-148410-0
on +2020-03-15|on +31/12/2020|on +31.12.2020|at +12.345678 -98.765432|at +48.858222 +2.294500|at +48.858222, +2.294500
at +48.858222 2.294500|at +52.520008 -13.404954|+1 2345|+ 10 000 000|+12,345,678 USD|+20 000 000|+20.000.000 EUR
+250 000 000|+45 678 912|+12 345 678|+100 000 000|v+2.10.3.45678|+3.14159265|+44.123456|2+20000000|Na+ 1234 5678
a+12345678|1e+12345678|+1 2345 6789|+12345678|+25000000|+5/12/2020|NDC 0049-3050-66|NDC 00351-0506-61
0000-0002-1825-0097|00123456|000123456789012|GTIN 00012345678905|10:00 49 30 12|2001 2002 2003 2004|+-12345678
+/- 12345678|+1.234567890|+20%|+1 000 000 000|+49,30,1234567|+02 1234 5678|+999 123 4567|+210 123 45678
strand +ACGT 12345678|+3 1 2|+2.5 10 mg|(+)-12345678|+0530|20+30 40+50 60|00 12 34 56 78 90
Cancer Res. 345-352 2004|2001;345:345-352 2004|doses of 200-400 1000 mg|300-500 1200 rpm|(200-300 2010 patients)
at 00 30 60 90 120 150 min|time +30 10 20 30 40 50 min|doses of 200 400 1000 mg|at 100 200 300 4000 s
code 0099 1234 5678|+12 345 678.90|+4420794609581234567890|20\u00a0000\u00a0000|030 1234567|01 23 45 67 89
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

NATIONAL = {
    "DE": ["030 1234567", "(030) 1234567", "030/1234567", "0171-1234567", "030 1234567 ext. 4"],
    "GB": ["0114 496 0123", "020 7946 0958", "01632 960 001", "07700 900123"],
    "FR": ["01 23 45 67 89", "01.23.45.67.89"],
    "IN": ["98765 43210", "022 2345 6789"],
    "JP": ["03-1234-5678", "090-1234-5678"],
    "AU": ["(02) 1234 5678", "1300 123 456"],
    "BR": ["(11) 91234-5678", "(11) 3123-4567"],
    "CN": ["138 0013 8000", "010-6123 4567"],
    "ES": ["612 345 678"],
    "IT": ["06 1234 5678", "320 123 4567"],
    "CA": ["(301) 555-0134"],
}


def masked(text: str, search: PersonalData = DEFAULT) -> str:
    return search.find(Texts.of([text])).texts[0]


@pytest.mark.parametrize("number", [*INTERNATIONAL, *OTHER_SCRIPTS])
def test_the_usual_forms_are_found_as_a_whole(number: str) -> None:
    edited = masked(f"call {number} now")
    assert edited.count("[PHONE]") == 1 and not any(character.isdecimal() for character in edited)
    assert masked(f"{number}; {number}").count("[PHONE]") == 2


@pytest.mark.parametrize("character", SPACES + HYPHENS)
def test_spaces_and_hyphens_of_every_kind_stand_between_digits(character: str) -> None:
    for number in ("+44 20 7946 0958", "0049 30 1234567", "1 301 555 0134"):
        assert masked(f"call {number.replace(' ', character)} now") == "call [PHONE] now"


@pytest.mark.parametrize("text", NO_PHONES)
def test_other_numbers_stay(text: str) -> None:
    assert masked(text) == text


def test_what_follows_a_number_stays() -> None:
    assert masked("+44 20 7946 0958 12 patients") == "[PHONE] 12 patients"
    assert masked("+1 415 555 2671 12mg") == "[PHONE] 12mg"
    assert masked("(+44 20 7946 0958) or") == "([PHONE]) or"
    for rest in (" (2020)", " (24 h)", " 24 hours a day"):
        assert masked(f"+49 89 12345678{rest}") == f"[PHONE]{rest}"
    for rest in (" x 2 tablets", " x3 daily"):
        assert masked(f"415-555-0123{rest}") == f"[PHONE]{rest}"


@pytest.mark.parametrize("country", NATIONAL)
def test_national_forms_are_found_where_their_country_is_named(country: PhoneCountry) -> None:
    search, other = PersonalData({"phone": "mask"}, [country]), PersonalData({"phone": "mask"}, [])
    for number in NATIONAL[country]:
        assert masked(f"call {number} now", search) == "call [PHONE] now"
        assert masked(f"call {number} now", other) == f"call {number} now"


@pytest.mark.parametrize(
    "text",
    ["01/02/2020", "01.02.2020", "2020-03-15", "0.12345678", "0.95-0.98 12345", "PMID 12345678", "0123456789",
     "NDC 0002-8215-01", "12 34 56 78", "ISBN 978-3-16-148410-0", "chr7:117559590-117559592", "CAS 50-78-2",
     "1999-2003", "between 0.0123-0.04567", "doi 10.1016/0123-4567", "call 0123-456",
     "250 000 000 cells", "100 - 150 - 200", "platelets 150 000 - 400 000", "ISBN 0-306-40615-2",
     "EudraCT 2010-123456-12", "NDC 50580-600-02"],
)  # fmt: skip
def test_other_numbers_stay_with_all_countries(text: str) -> None:
    assert masked(text, PersonalData({"phone": "mask"}, COUNTRIES)) == text


@pytest.mark.parametrize(
    "text",
    ["Tel: 030 1234567", "Fax: 617 555 0112", "Phone 2125550187", "Tel. 0301234567", "T\u00e9l: 01 23 45 67 89",
     "Cell: 5550187123", "Phone number: 030/1234567", "Handy 0171 1234567", "WhatsApp+447700900123"],
)  # fmt: skip
def test_a_label_makes_digits_a_telephone_number(text: str) -> None:
    edited = masked(f"{text} now")
    assert edited.endswith("[PHONE] now") and not any(character.isdecimal() for character in edited)


@pytest.mark.parametrize("text", ["Cell 2012 149 1188", "Phone 2020-03-15 10:00", "hotel 12345678", "Tel 12345"])
def test_other_numbers_behind_such_words_stay(text: str) -> None:
    assert masked(text) == text


def test_countries_are_checked_with_the_list_of_those_that_are_known() -> None:
    assert set(COUNTRIES) == _NATIONAL.keys() | {"US", "CA"}
    assert EditConfig.model_validate({"phone_countries": ["DE", "US"]}).phone_countries == ["DE", "US"]
    with pytest.raises(ValueError, match=r"'AT'.*'DE'.*'ZA'"):
        EditConfig.model_validate({"phone_countries": ["XX"]})


PIECES = st.one_of(
    st.sampled_from([*INTERNATIONAL, *OTHER_SCRIPTS]),
    st.sampled_from([number for numbers in NATIONAL.values() for number in numbers]),
    st.sampled_from(NO_PHONES),
    st.from_regex(r"[0-9]{1,5}", fullmatch=True),
    st.sampled_from([*SPACES, *HYPHENS, "+", "(", ")", "00", "٤"]),
)


@given(st.lists(PIECES, max_size=6).map("".join))
@examples(50)
def test_the_scan_marks_what_the_pattern_finds(text: str) -> None:
    batch = Texts.of([text])
    (mark,) = personal_marks(batch.data, batch.offsets, np.ones(1, np.bool_))
    for countries, wanted in ((["US"], PHONE), (list(COUNTRIES), PHONE | NATIONAL_PHONE)):
        search = PhoneSearch(countries)
        if any(search.end_of(match) > 0 for match in search.pattern.finditer(text)):
            assert mark & wanted
