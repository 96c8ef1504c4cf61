"""Personal data: what is found, what is not, what is done about it; the scan before the patterns misses nothing."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.corpus.config import EditConfig
from stages.corpus.kernels.marks import personal_marks
from stages.corpus.personal import _MARKS, KINDS, PLACEHOLDERS, PersonalData, Search, _counts, _spans, make_searches
from stages.corpus.phones import PhoneSearch
from stages.corpus.texts import Texts
from stages.sample.biomed.phrases import PERSONAL
from stages.sample.personal import personal_sentence
from tests.support import examples

SEARCHES = make_searches(PhoneSearch(["US"]))
MASK = PersonalData(dict.fromkeys(KINDS, "mask"))

FOUND = [
    ("mail jane.doe_7@mail.example.org.", "email"),
    ("<jane+lists@example.org>", "email"),
    ("write to...élise@example.fr!", "email"),
    ("write to josé@example.fr or", "email"),
    ("jane-@-a.example.org", "email"),
    ("jane@example.org@example.com", "email"),
    ("mailto:o.brien@example.co.uk?subject=x", "email"),
    ("call (301) 555-0134 now", "phone"),
    ("call 301-555-0134.", "phone"),
    ("call 301.555.0134", "phone"),
    ("call +1 301 555 0134", "phone"),
    ("call +1(301)555-0134", "phone"),
    ("call 1-800-222-1222", "phone"),
    ("call 1301-555-0134", "phone"),
    ("call +13015550134", "phone"),
    ("call +44 20 7946 0958", "phone"),
    ("call +44 (0)20 7946 0958", "phone"),
    ("call +49 30 1234567, or", "phone"),
    ("call +33 1 23 45 67 89;", "phone"),
    ("call +4 123 4567", "phone"),
    ("call +44 (20) (79) 4609", "phone"),
    ("SSN 078-05-1120 on file", "ssn"),
    ("from 192.0.2.44, again", "ip"),
    ("from 203.0.113.9: twice", "ip"),
    ("from 2001:db8::8a2e:370:7334, again", "ip"),
    ("from 2001:0DB8:0000:0000:0000:8A2E:0370:7334.", "ip"),
    ("from fe80::1: again", "ip"),
    ("from 3fff::1", "ip"),
    ("prefix fd12:3456:789a::/48", "ip"),
    ("MRN 1234567 seen", "mrn"),
    ("MRN: AB-1234567 seen", "mrn"),
    ("MRN1234567", "mrn"),
    ("medical record number is 00123456", "mrn"),
    ("MEDICAL RECORD NO. 00123456", "mrn"),
    ("Medical Record #: 4711", "mrn"),
    ("medical record number\u2003\u2003\u2003was ABC-1234567", "mrn"),
    ("to DE89 3704 0044 0532 0130 00 today", "iban"),
    ("to GB29NWBK60161331926819.", "iban"),
    ("to AT61 1904 3002 3457 3201 BIC", "iban"),
    ("to NO93 8601 1117 947", "iban"),
    ("card 4111 1111 1111 1111 12/29", "card"),
    ("card #4111-1111-1111-1111", "card"),
    ("card 4111 1111 1111 1111 123", "card"),
    ("card 5555555555554444.", "card"),
    ("card 3782 822463 10005,", "card"),
    ("card 378282246310005", "card"),
    ("card 30569309025904", "card"),
    ("card 4222222222222", "card"),
    ("card 6011000990139424", "card"),
    ("card 3530111333300000", "card"),
    ("card 2223003122003222", "card"),
]  # fmt: skip

NOT_FOUND = [
    "take 2.5 mg/kg, at most 1000-2000 mg per 24 hours",
    "chr7:117559590-117559592, NM_000492.4:c.1521_1523del",
    "trypsin (EC 3.4.21.4) and lactate dehydrogenase EC 1.1.1.27",
    "aspirin, CAS 50-78-2, in 1999-2003 and on 2020-03-15 or 12/31/2021",
    "blood pressure 120-80, ratio 1.5 (95% CI 1.2-1.9), n = 12345678",
    "ClinicalTrials NCT01234567, PMID 12345678, doi:10.1016/j.cell.2020.01.001",
    "ISBN 978-3-16-148410-0, phone-like 555-0134, ICD-10 E11.65",
    "ISBN 9783161484100, ISBN-10 3161484100, EAN 4006381333931",
    "version 10.2.1.3 of the record number of patients",
    "200 400 1000 cells per field",
    "NCT04280705, ACTRN12605000123456, ISRCTN12345678, EudraCT 2005-001234-56, ChiCTR2000029308",
    "ENSG00000139618, ENST00000380152.8, rs113993960, NM_007294.4, NP_009225.1, XM_011541469.2, LRG_292t1",
    "doi:10.1016/S0140-6736(05)67889-0, doi:10.1371/journal.pone.0123456, 10.1093/nar/gkaa1100",
    "https://doi.org/10.1234/4111111111111111 and https://example.org/?id=4111111111111111",
    "PMC7092819, PMID: 32015507, PubMed 9504950 and OMIM 219700, UniProt P38398, Orphanet 586",
    "HLA-A*02:01:01:01, DRB1*15:01, between 12:30:45 and 23:59, ratio 1:2:3:4:5:6:7:8, MAC 00:1A:2B:3C:4D:5E",
    "sodium 135-145 mmol/L, potassium 3.5-5.0, 0.4111111111111111 and 4111111111111112",
    "platelets 150,000-450,000, WBC 4.5-11.0 x 10^9/L, +2.5 10 mg, +3 1 2 and +5.3 4 5",
    "the MRN complex (Mre11-Rad50-Nbs1) in 2003, and mRNA 1234567",
    "std::vector, face::bead, 2001::12345, a@b, 5 @ 3, user@localhost, @handle",
    "img@3x.jpeg, img@2x.min.png and pkg@latest.tgz",
    "in 2001 2002 2003 2004 2005 2006, 1234 5678 9012 3456 and 4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01 and XX89 3704 0044 0532 0130 00, GB29 NWBK 6016",
    "NDC 0002-8215-01, lot AB12 3456 7890 1234, LOINC 2345-7, SNOMED 73211009, CPT 99213",
    "123-45-67890, 078-05-1120-3, 1-078-05-1120 and 0000-0002-1825-0097",
]  # fmt: skip


def replace_personal_data(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind: by the regular expressions alone, without the scan."""
    spans = _spans(text, {kind: search for kind, search in SEARCHES.items() if kind in set(kinds)})
    return "".join(PLACEHOLDERS.get(span.kind, span.text) for span in spans), _counts(spans)


@pytest.mark.parametrize(("text", "kind"), FOUND)
def test_personal_data_is_replaced(text: str, kind: str) -> None:
    edited, counts = replace_personal_data(text, KINDS)
    assert counts == {kind: 1}
    assert edited.count(PLACEHOLDERS[kind]) == 1
    rest = edited.replace("12/29", "").replace(" 123", "").replace("/48", "")
    assert not re.search("[0-9@]", rest)
    assert replace_personal_data(text, [k for k in KINDS if k != kind]) == (text, {})
    assert MASK.find(Texts.of([text])).texts[0] == edited


@pytest.mark.parametrize("text", NOT_FOUND)
def test_medical_numbers_are_no_personal_data(text: str) -> None:
    assert replace_personal_data(text, KINDS) == (text, {})
    for kind in KINDS:
        assert replace_personal_data(text, [kind]) == (text, {})


def test_planted_sentences_lose_all_that_is_planted() -> None:
    rng = random.Random(3)
    sentences = [personal_sentence(rng, PERSONAL) for _ in range(200)]
    found = MASK.find(Texts.of(text for text, _ in sentences))
    assert found.changed.all() and not found.removals and not found.tags
    for row, (_, planted) in enumerate(sentences):
        assert sum(found.counts[row].values()) == len(planted)
        numbers = [string.removeprefix("MRN ") for string in planted]
        assert not any(number in found.texts[row] for number in numbers)


def test_each_kind_gets_what_is_asked_for() -> None:
    actions = {"email": "mask", "phone": "tag", "ssn": "drop", "ip": "drop"}
    texts = [
        "nothing here",
        "a@example.org and 301-555-0134",
        "078-05-1120 and 078-05-1121 from 192.0.2.1 or b@example.org",
        "MRN 1234567",
        "301-555-0134@example.org",
    ]
    found = PersonalData(actions).find(Texts.of(texts))
    assert [found.texts[i] for i in range(len(texts))] == [
        "nothing here",
        "[EMAIL] and 301-555-0134",
        "078-05-1120 and 078-05-1121 from 192.0.2.1 or [EMAIL]",
        "MRN 1234567",
        "[EMAIL]",
    ]
    assert found.changed.tolist() == [False, True, True, False, True]
    assert found.counts == {1: {"email": 1, "phone": 1}, 2: {"email": 1, "ssn": 2, "ip": 1}, 4: {"email": 1}}
    assert found.tags == {1: ["phone"]}
    (row, removal) = next(iter(found.removals.items()))
    assert len(found.removals) == 1 and row == 2
    assert (removal.rule, removal.value, removal.threshold) == ("personal_data", 3, 0)
    assert removal.detail == "2 ssn, 1 ip"


def test_rows_that_are_masked_out_are_not_looked_at() -> None:
    texts = Texts.of(["a@example.org", "b@example.org"])
    found = MASK.find(texts, np.array([False, True]))
    assert (found.texts[0], found.texts[1], list(found.counts)) == ("a@example.org", "[EMAIL]", [1])
    assert PersonalData({}).find(texts).counts == {}
    assert len(MASK.find(Texts.of([])).texts) == 0


def test_unknown_kinds_and_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="passport"):
        EditConfig.model_validate({"personal_data": {"passport": "mask"}})
    with pytest.raises(ValueError, match="hide"):
        EditConfig.model_validate({"personal_data": {"email": "hide"}})


# Texts that hold personal data, parts of it, and what is nearly some, one upon the other.
EXAMPLES = [re.sub(r"^(call|mail|from|to|card|SSN) | (now|seen|again|today)$", "", text) for text, _ in FOUND]
PARTS = st.one_of(
    st.sampled_from(EXAMPLES),
    st.sampled_from(NOT_FOUND),
    st.sampled_from(list(PLACEHOLDERS.values())),
    st.from_regex(r"[0-9]{1,5}[-. ():]{0,3}", fullmatch=True),
    st.sampled_from(["+", "(", ")", "(0)", "-", ".", " ", ":", "::", "@", "MRN", "medical record no. ", "EC ",
                     "version ", "é", "٣", "+٤٤ ٢٠", "\uff0b\uff14", "\u00a0", "\u2011",
                     "00", "0049 ", " ext. ", "/", "\0", "\u2003", "e\u0301", "👩‍⚕️", "DE89", "2001:db8", "x", "\n"]),
    st.text(max_size=5),
)  # fmt: skip
HOSTILE = st.lists(PARTS, max_size=8).map("".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A text that is nearly personal data: a piece cut out or one character put in."""
    text = draw(HOSTILE)
    begin = draw(st.integers(0, len(text)))
    return (
        text[:begin]
        + draw(st.one_of(st.just(""), st.characters(codec="utf-8")))
        + text[begin + draw(st.integers(0, 2)) :]
    )


TEXTS = st.one_of(HOSTILE, damaged(), st.text(max_size=40))


@given(st.lists(TEXTS, max_size=5))
@example(["1", "@", ":", "+", "M", "ISO 12", "GB29", "record 1234", "a@b", "2001:", "2001::"])
@examples(50)
def test_the_scan_marks_whatever_the_patterns_find(texts: list[str]) -> None:
    batch = Texts.of(texts)
    marks = personal_marks(batch.data, batch.offsets, np.ones(len(texts), np.bool_))
    found = MASK.find(batch)
    for i, text in enumerate(texts):
        edited, counts = replace_personal_data(text, KINDS)
        assert (found.texts[i], found.counts.get(i, {}), found.changed[i]) == (edited, counts, edited != text)
        for kind in KINDS:
            if replace_personal_data(text, [kind])[1] or kind in counts:
                assert marks[i] & _MARKS[kind], (kind, text)


PATTERNS = st.sampled_from(["email", "mrn", "ssn", "phone", "ip"]).map(lambda kind: SEARCHES[kind].pattern)


@given(PATTERNS.flatmap(st.from_regex))
@examples(50)
def test_the_scan_marks_what_is_made_to_be_found(text: str) -> None:
    assert MASK.find(Texts.of([text])).counts.get(0, {}) == replace_personal_data(text, KINDS)[1]


@given(TEXTS)
@example("192.0.2.1 4111 1111 1111 1111")
@example("078-05-1120 4111 1111 1111 1111 192.0.2.1")
@examples(50)
def test_replacing_twice_changes_nothing_more(text: str) -> None:
    once, counts = replace_personal_data(text, KINDS)
    assert replace_personal_data(once, KINDS) == (once, {})
    assert (once == text) == (not counts)


@pytest.mark.parametrize(
    "unit",
    ["1-", "a@", "1.", "a.", "a-", "+4 ", "+4(1)", "+٤", "+44 20 ", "\uff0b4", "00 4 ",
     "0049 3 ", "4 )(", "1:", "2001:", "fe80::", "A@a.", "DE89 ", "4111 ", "4111-1111-",
     "MRN ", "(301) 555-", "1@a.aa.", "078-05-1120-", "MRN 1234567(301) 555-0134",
     "a@example.org(301) 555-0134MRN 1234567", "a.b.c.d.e.f@g.h.i.",
     "078-05-1120 ", "192.0.2.1 ", "medical record ", "1", "4", "@", "A"],
)  # fmt: skip
def test_a_long_text_of_nearly_something_is_done_in_linear_time(unit: str) -> None:
    # A pattern that backtracks over the whole text would take minutes; the test's time-out is the limit.
    text = unit * (30_000 // len(unit))
    edited, counts = replace_personal_data(text, KINDS)
    assert replace_personal_data(edited, KINDS) == (edited, {})
    assert MASK.find(Texts.of([text])).counts.get(0, {}) == counts


@pytest.mark.parametrize(
    "unit", ["(415) 555-0123", "+14155550123", "600 200 300 ", "600 200 300 4111 1111 1111 1111 ", "a@b.MRN1234 "]
)
def test_numbers_that_are_found_only_behind_others_are_found_in_linear_time(unit: str) -> None:
    searches = make_searches(PhoneSearch(["US", "PL"]))
    ends = 0

    def counted(search: Search) -> Search:
        def end_of(match: re.Match[str]) -> int:
            nonlocal ends
            ends += 1
            return search.end_of(match)

        return Search(search.pattern, end_of, search.group)

    spans = _spans(unit * 1000, {kind: counted(search) for kind, search in searches.items()})
    assert sum(_counts(spans).values()) >= 1000
    assert ends < 100 * 1000
    masked = "".join(PLACEHOLDERS.get(span.kind, span.text) for span in spans)
    assert _counts(_spans(masked, searches)) == {}


def test_the_patterns_leave_brackets_alone() -> None:
    # Placeholders rest on it: none is found, and none becomes part of what is.
    assert not any(re.search(r"\[\[\]]", search.pattern.pattern) for search in SEARCHES.values())
    for placeholder in PLACEHOLDERS.values():
        assert replace_personal_data(f"MRN {placeholder} {placeholder}@{placeholder}.org", KINDS)[1] == {}
