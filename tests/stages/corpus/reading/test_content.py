"""Content decides what a text file is: text in a known encoding, or something else that is named."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from stages.corpus.reading.content import UNMARKED, decode_text


def docx() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", "<w:t>Some text</w:t>")
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "text",
    [
        "Hällo, 日本語 👩\r\n\f",
        "<html><p>Hello",
        '{"text": "a"}',
        "PAR1 is a receptor",
        "%",
        "",
        "%PDF files are described",
    ],
)
def test_text_is_read_in_the_encoding_of_its_mark(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("text", ["%PDF-files", "GIF87a and GIF89a", "GIF89a"])
def test_a_text_about_a_format_is_not_of_this_format(text: str) -> None:
    assert decode_text(text.encode()) == text


def test_big_endian_text_is_read_too() -> None:
    assert decode_text(b"\xfe\xff" + "Hällo".encode("utf-16-be")) == "Hällo"
    assert decode_text(b"\x00\x00\xfe\xff" + "Hällo".encode("utf-32-be")) == "Hällo"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.7\n1 0 obj", "the content is a PDF document, not text"),
        (b"\xef\xbb\xbf%PDF-1.7", "the content is a PDF document, not text"),
        (b"\n%PDF-1.7", "the content is a PDF document, not text"),
        (b"{\\rtf1\\ansi Hello}", "the content is an RTF document, not text"),
        (docx(), "the content is a ZIP archive"),
        (gzip.compress(b"Hello"), "the content is gzip data (a file named .gz is decompressed, once), not text"),
        (b"\x89PNG\r\n\x1a\n\x00", "the content is a PNG image, not text"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "the content is a JPEG image, not text"),
        (b"\x7fELF\x02\x01", "the content is a program (ELF), not text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "the content is a Microsoft Office document, not text"),
        (b"one\x00two", "binary content: character 4 is NUL"),
        (b"\x00" * 50, "binary content: character 1 is NUL"),
        (b"\x01\x02\x03abc", "binary content: more than 10% of its first characters are control characters"),
        ("Hello there".encode("utf-16-le"), UNMARKED.format("UTF-16")),
        ("Hello there".encode("utf-16-be"), UNMARKED.format("UTF-16")),
        ("Hello there".encode("utf-32-le"), UNMARKED.format("UTF-32")),
        (b"GIF89a\x01\x00\x01\x00\x80\x00\x00", "the content is a GIF image, not text"),
        (b"\xff\xfeH", "invalid UTF-16: "),
        (b"caf\xe9 au lait", "invalid UTF-8: invalid continuation byte at byte 3; if it is text in another encoding"),
    ],
)
def test_other_content_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        decode_text(data)
    assert str(error.value).startswith(reason)
