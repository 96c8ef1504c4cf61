"""Records of JSON Lines: one JSON object a line."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from stages import strict_json
from stages.corpus.reading.content import foreign_format, wide_encoding
from stages.corpus.reading.lines import TooLong, lines
from stages.corpus.reading.record import BadRecord, FileRange, Record, RecordCount, too_long
from stages.store import InputError

NOT_UTF8 = "the file is {}; JSON Lines are read as UTF-8 only: convert it"
ONE_A_LINE = "write each record on a line of its own (jq -c '.[]' for a list of records, jq -c . for objects)"
_BOM = b"\xef\xbb\xbf"


def json_lines(stream: BinaryIO, file_range: FileRange, limit: int, count: RecordCount) -> Iterator[Record]:
    """The records of the lines that begin in a range of a file; blank lines are counted, but are no records."""
    found = lines(stream, limit, file_range.start, file_range.end)
    first, lost = file_range.start == 0, False
    while True:
        try:
            line = next(found)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            if file_range.end is not None:  # the numbers of all later lines are unknown
                raise InputError(
                    f"{file_range.file} cannot be read beyond byte {file_range.start:,}: {error}"
                ) from error
            yield Record(count.number + 1, BadRecord(f"the file cannot be read any further: {error}", rest_lost=True))
            return
        number = count.number = count.number + 1
        if lost:
            continue  # counted nevertheless: the numbers of later ranges follow
        if isinstance(line, TooLong):
            yield Record(number, too_long(line, limit))
        elif line and not line.isspace():
            value = _first_value(line) if first else json_object(line)
            lost = isinstance(value, BadRecord) and value.rest_lost
            yield Record(number, value)
        else:
            continue
        first = False


def _first_value(line: bytes) -> dict[str, Any] | BadRecord:
    """The first record of a file; or, if that shows that it is no JSON Lines file, which one it is."""
    if foreign := foreign_format(line):
        return BadRecord(f"the content is {foreign}, not JSON Lines", rest_lost=True)
    if wide := wide_encoding(line):
        return BadRecord(NOT_UTF8.format(wide), rest_lost=True)
    value = json_object(line)
    start = line.removeprefix(_BOM).strip()
    if isinstance(value, BadRecord) and (start == b"{" or start.startswith(b"[")):
        return BadRecord(f"{value.reason}; if the file is one JSON value over several lines, {ONE_A_LINE}")
    return value


def json_object(line: bytes) -> dict[str, Any] | BadRecord:
    """The object of a line; a byte order mark before it, as where files were joined, is left out."""
    try:
        value = strict_json.loads(line.removeprefix(_BOM))
    except ValueError as error:
        wide = wide_encoding(line)
        return BadRecord(NOT_UTF8.format(wide) if wide else str(error))
    return value if isinstance(value, dict) else BadRecord(f"a JSON {type(value).__name__}, not an object")
