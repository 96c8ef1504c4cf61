"""Which texts may hold personal data: one scan that selects the few texts for the regular expressions to search.

Every mark is a necessary condition of a match, whatever surrounds it: a text that is not marked for a kind has no match
of that kind. Where a match begins and ends with a whole run of digits, runs are compared as a whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

EMAIL, PHONE, SSN, IP, MRN, IBAN, CARD = 1, 2, 4, 8, 16, 32, 64
NATIONAL_PHONE = 128
"""A telephone number in a national form other than the North American one."""

_AT, _COLON, _DIGIT, _PLUS, _FULL_WIDTH = 1, 2, 3, 4, 5
_CLASS = np.zeros(256, np.uint8)
_CLASS[ord("@")] = _AT
_CLASS[ord(":")] = _COLON
_CLASS[ord("+")] = _PLUS
_CLASS[0xEF] = _FULL_WIDTH  # first byte of a full-width plus, EF BC 8B
_CLASS[ord("0") : ord("9") + 1] = _DIGIT

_LONGEST_GAP = 12
"""Bytes between two groups of digits of one telephone number, of up to four characters: `) (`."""
_SHORTEST_PHONE = 8
"""Digits of a telephone number, with country code or the 0 in front."""
_RECORD_WINDOW = 48
"""Bytes before a medical record number that contain `record` or `MRN`."""
_SHORTEST_IBAN, _LONGEST_IBAN = 15, 34


@kernel
def is_digit(byte: int) -> bool:
    """0 to 9."""
    return 48 <= byte <= 57


@kernel
def is_capital(byte: int) -> bool:
    """A to Z."""
    return 65 <= byte <= 90


@kernel
def is_hexadecimal(byte: int) -> bool:
    """0 to 9, a to f, A to F."""
    return 48 <= byte <= 57 or 97 <= (byte | 32) <= 102


@kernel
def may_be_mail(data: NDArray[np.uint8], at: int, begin: int, end: int) -> bool:
    """Is the @ at `at` after a byte that can end a name, and before one that can begin a host name?"""
    if at == begin or at + 1 >= end:
        return False
    before, after = data[at - 1], data[at + 1]
    name = (
        is_digit(before)
        or is_capital(before & 0xDF)
        or before >= 128
        or before == 43
        or before == 45
        or before == 46
        or before == 95
    )
    return name and (is_digit(after) or is_capital(after & 0xDF) or after == 45)


@kernel
def may_join_phone(byte: int) -> bool:
    """May the byte stand between two digits of a telephone number: a space, -, ., /, a bracket or not ASCII?"""
    return byte == 32 or byte == 45 or byte == 46 or byte == 47 or byte == 40 or byte == 41 or byte >= 128


@kernel
def may_be_international(data: NDArray[np.uint8], at: int, end: int) -> bool:
    """Do enough digits follow from `at` on, just behind a plus? A character that is not ASCII may be one."""
    if at >= end or not (is_digit(data[at]) or data[at] == 32 or data[at] == 40 or data[at] >= 128):
        return False
    digits = 0
    for k in range(at, end):
        byte = data[k]
        if is_digit(byte) or byte >= 192:
            digits += 1
            if digits >= _SHORTEST_PHONE:
                return True
        elif not may_join_phone(byte):
            return False
    return False


@kernel
def dials_abroad(data: NDArray[np.uint8], start: int, size: int) -> bool:
    """Does the run of digits begin with 00, or is it 011?"""
    if size < 2 or data[start] != 48:
        return False
    return data[start + 1] == 48 or (size == 3 and data[start + 1] == 49 and data[start + 2] == 49)


@kernel
def may_be_labelled(data: NDArray[np.uint8], digits: int, begin: int) -> bool:
    """Does a word such as `Phone` or `Tel:` end before the run of digits at `digits`, by its last letter?"""
    k = digits - 1
    while k >= begin and digits - k <= _LONGEST_GAP and (may_join_phone(data[k]) or data[k] == 58):
        k -= 1
    if k < begin:
        return False
    last = data[k] | 32
    # tel, telefon, telephone, fax, mob, handy, whatsapp; number, no, nr.
    return (
        last == 108
        or last == 110
        or last == 101
        or last == 120
        or last == 98
        or last == 121
        or last == 112
        or last == 114
        or last == 111
    )


@kernel
def may_be_ip6(data: NDArray[np.uint8], colon: int, begin: int, end: int) -> bool:
    """Is the colon the first of an IPv6 address: four hexadecimal digits before it, the first 2, 3 or f?"""
    if colon - begin < 4 or colon + 1 >= end:
        return False
    for k in range(colon - 4, colon):
        if not is_hexadecimal(data[k]):
            return False
    first = data[colon - 4] | 32
    after = data[colon + 1]
    return (first == 50 or first == 51 or first == 102) and (is_hexadecimal(after) or after == 58)


@kernel
def may_be_iban(data: NDArray[np.uint8], digits: int, begin: int, end: int) -> bool:
    """Is there an IBAN's country before the run of digits at `digits`, and enough characters after it?"""
    if digits - begin < 2 or not (is_capital(data[digits - 1]) and is_capital(data[digits - 2])):
        return False
    found = 2
    k = digits
    # Two characters are separated by one space at most.
    while k < end and found < _SHORTEST_IBAN and k < digits + 2 * _LONGEST_IBAN:
        if is_digit(data[k]) or is_capital(data[k]):
            found += 1
        elif data[k] != 32 or data[k - 1] == 32:
            break
        k += 1
    return found >= _SHORTEST_IBAN


@kernel
def may_be_record(data: NDArray[np.uint8], digits: int, begin: int) -> bool:
    """Is there `MRN` or `record` shortly before the run of digits at `digits`?"""
    for k in range(max(begin, digits - _RECORD_WINDOW), digits - 2):
        if data[k] == 77 and data[k + 1] == 82 and data[k + 2] == 78:
            return True
        if (
            data[k] | 32 == 114
            and k + 6 <= digits
            and data[k + 1] | 32 == 101
            and data[k + 2] | 32 == 99
            and data[k + 3] | 32 == 111
            and data[k + 4] | 32 == 114
            and data[k + 5] | 32 == 100
        ):
            return True
    return False


@kernel
def personal_marks(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], searched: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """For each text the kinds that it may hold, as a sum of `EMAIL` ... `CARD`, uint8[n]; 0 if not searched."""
    marks = np.zeros(len(offsets) - 1, np.uint8)
    for i in range(len(marks)):
        if not searched[i]:
            continue
        begin, end = offsets[i], offsets[i + 1]
        found = 0
        # State of the current chain of runs of digits: end of the last run, sizes of the last two, digits in total,
        # digits since a run that dials abroad (-1: none), runs between full stops, digits between single spaces or
        # hyphens, whether the last run came after a hyphen, and whether a label may stand before the first.
        last = -1
        size_1 = size_2 = 0
        digits = 0
        zeros = -1
        dotted = 0
        spaced = 0
        hyphen_1 = False
        labelled = False
        k = begin
        while k < end:
            kind = _CLASS[data[k]]
            if kind == 0:
                k += 1
                continue
            if kind == _AT:
                if may_be_mail(data, k, begin, end):
                    found |= EMAIL
                k += 1
                continue
            if kind == _COLON:
                if may_be_ip6(data, k, begin, end):
                    found |= IP
                k += 1
                continue
            if kind == _PLUS:
                if may_be_international(data, k + 1, end):
                    found |= PHONE
                k += 1
                continue
            if kind == _FULL_WIDTH:
                is_plus = k + 3 <= end and data[k + 1] == 0xBC and data[k + 2] == 0x8B
                if is_plus and may_be_international(data, k + 3, end):
                    found |= PHONE
                k += 1
                continue
            start = k
            while k < end and is_digit(data[k]):
                k += 1
            size = k - start
            gap = start - last
            chained = last >= 0 and gap <= _LONGEST_GAP
            if chained:
                for j in range(last, start):
                    if not may_join_phone(data[j]):
                        chained = False
            hyphen = False
            if chained:
                between = data[start - 1]
                hyphen = gap == 1 and between == 45
                dotted = dotted + 1 if gap == 1 and between == 46 and size <= 3 and dotted else 0
                spaced = spaced + size if gap == 1 and (between == 32 or between == 45) else size
                digits += size
                if size == 4 and size_1 == 3 and 3 <= size_2 <= 4:
                    found |= PHONE
                if size == 4 and size_1 == 2 and size_2 == 3 and hyphen and hyphen_1:
                    found |= SSN
            else:
                zeros = -1
                size_1 = 0
                labelled = may_be_labelled(data, start, begin)
                dotted = 0
                spaced = digits = size
            if dotted == 0 and size <= 3:
                dotted = 1
            if zeros >= 0:
                zeros += size
            elif dials_abroad(data, start, size):
                zeros = size
            if zeros >= _SHORTEST_PHONE:
                found |= PHONE
            if digits >= _SHORTEST_PHONE:
                found |= NATIONAL_PHONE
                if labelled:
                    found |= PHONE
            if dotted >= 4:
                found |= IP
            if spaced >= 13:
                found |= CARD
            if size >= 4 and not found & MRN and may_be_record(data, start, begin):
                found |= MRN
            if size >= 2 and not found & IBAN and may_be_iban(data, start, begin, end):
                found |= IBAN
            last = k
            size_2, size_1 = size_1, size
            hyphen_1 = hyphen
        marks[i] = found
    return marks
