"""What bytes are, by themselves: text in which encoding, or data of another format under a text file's name."""

from __future__ import annotations

import codecs
import re

_SIGNATURES = (
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "a PostScript document"),
    (b"PK\x03\x04", "a ZIP archive (as DOCX, XLSX, ODT and EPUB are)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Microsoft Office document"),
    (b"\x1f\x8b", "gzip data (a file named .gz is decompressed, once)"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"BZh91AY&SY", "bzip2 data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "a program (ELF)"),
    (b"PAR1\x15", "Parquet data (name it .parquet to have it read)"),
    (b"ARROW1\x00\x00", "Arrow data"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
"""First bytes of files of other formats, past a byte order mark and white space, and what such a file is."""

_PATTERNS = (
    (re.compile(rb"%PDF-\d"), "a PDF document"),
    (re.compile(rb"GIF8[79]a.{,6}[\x00-\x08]", re.DOTALL), "a GIF image"),
)
"""As `_SIGNATURES`, for formats whose first bytes may begin a text about them too."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the codec that reads what follows them; UTF-32's begins as UTF-16's does."""

UNMARKED = "the file is {} without a byte order mark; convert it to UTF-8"
CONTROL_SHARE = 0.1
"""Above this share of control characters the beginning of a file is no text."""
BEGINNING = 4096
"""How many characters of a file that share is taken of."""
_CONTROLS = dict.fromkeys({*range(32), 127} - {*b"\t\n\v\f\r\x1b"})


def foreign_format(data: bytes) -> str | None:
    """The format, in words, that the first bytes of a file show; None where they may be text."""
    head = data[:64].removeprefix(codecs.BOM_UTF8).lstrip()
    found = [words for signature, words in _SIGNATURES if head.startswith(signature)]
    found += [words for pattern, words in _PATTERNS if pattern.match(head)]
    return found[0] if found else None


def wide_encoding(data: bytes) -> str:
    """`UTF-16` or `UTF-32`, by the byte order mark, or by where zero bytes are in Western text; empty for others."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    first = data[: 1 << 10]
    if len(first) < 4:
        return ""
    fewest, second, *_ = sorted(first[place::4].count(0) for place in range(4))
    if second * 6 > len(first) and fewest * 10 < second:  # three bytes of four
        return "UTF-32"
    zeros = first[::2].count(0), first[1::2].count(0)
    return "UTF-16" if max(zeros) * 3 > len(first) and min(zeros) * 10 < max(zeros) else ""


def decode_text(data: bytes) -> str:
    """A text file's text: UTF-8, or UTF-16 or UTF-32 behind their byte order mark, which is no part of the text.

    Raises:
        ValueError: the content is of another format, of an encoding that is not known, or binary; says which.
    """
    if foreign := foreign_format(data):
        raise ValueError(f"the content is {foreign}, not text")
    codec = next((codec for mark, codec in _MARKS if data.startswith(mark)), "utf-8")
    if codec == "utf-8" and (wide := wide_encoding(data)):
        raise ValueError(UNMARKED.format(wide))
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        if codec != "utf-8":
            raise ValueError(f"invalid {codec.removesuffix('-sig').upper()}: {error}") from None
        raise ValueError(
            f"invalid UTF-8: {error.reason} at byte {error.start}; if it is text in another encoding such as "
            "Windows-1252, convert it to UTF-8"
        ) from None
    if (at := text.find("\0")) >= 0:
        raise ValueError(f"binary content: character {at + 1:,} is NUL")
    beginning = text[:BEGINNING]
    if len(beginning.translate(_CONTROLS)) < (1 - CONTROL_SHARE) * len(beginning):
        raise ValueError(
            f"binary content: more than {CONTROL_SHARE:.0%} of its first characters are control characters"
        )
    return text
