"""FASTA files are read as a plain parser reads them, in bounded memory, and what is no sequence is told."""

from __future__ import annotations

import gzip
import io
import random
import re
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus import CorpusConfig, list_files, read_original, sources_in
from stages.corpus.config import SourceConfig
from stages.corpus.reading import fasta as module
from stages.corpus.reading.fasta import letters_of, sequences
from stages.corpus.reading.record import BadRecord
from stages.corpus.reading.records import format_in, read_records
from stages.store import Artifact
from tests.stages.corpus.corpus_world import rows_of
from tests.support import examples

Run = Callable[..., Artifact]
PLAIN: dict[str, Any] = {
    "edits": {"personal_data": {}, "boilerplate_edge_lines": 0, "boilerplate_paragraph_characters": 0},
    "filters": {"languages": [], "quality": None, "repetition": None, "c4": None},
    "dedup": {"near": False},
    "heldout_fraction": 0,
}
"""A corpus of DNA: nothing that counts words."""


def plain(data: bytes) -> list[tuple[str, str]]:
    """Header and letters of each record, by the definition; the file must begin with `>`."""
    records: list[tuple[str, str]] = []
    for line in re.split(r"[\r\n]", data.decode()):
        if line.startswith(">"):
            records.append((" ".join(line[1:].split()), ""))
        else:
            records[-1] = (records[-1][0], records[-1][1] + "".join(line.split()))
    return records


def read(data: bytes, limit: int = 1000, **options: Any) -> list[tuple[str, str]]:
    return [(found.header, found.letters) for found in sequences(io.BytesIO(data), limit, **options)]


ends = st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b" \n"])
lines = st.lists(st.tuples(st.sampled_from([b"", b"A", b"acgt", b"TTN-N*", b"GG C"]), ends), max_size=5)
headers = st.sampled_from([b"", b"chr1", b"s 1  two > three", b" lead", b"x\xc3\xa9", b">>"])
records = st.lists(st.tuples(headers, ends, lines), min_size=1, max_size=5)


def written(content: list[Any]) -> bytes:
    return b"".join(b">" + head + end + b"".join(a + b for a, b in body) for head, end, body in content)


@examples(50)
@given(records, st.integers(1, 7))
def test_a_plain_parser_finds_the_same(content: list[Any], block: int) -> None:
    data = written(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = list(sequences(io.BytesIO(data), 1000))
    assert [(one.header, one.letters) for one in found] == plain(data)
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert all(one.reason.endswith("the sequence is empty") == (not one.letters) for one in found)


@examples(50)
@given(records, st.lists(st.integers(1, 60), max_size=4, unique=True), st.integers(1, 9))
def test_ranges_give_each_record_once(content: list[Any], cuts: list[int], block: int) -> None:
    data = written(content)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = [record for start, end in pairwise(places) for record in read(data, start=start, end=end)]
    assert found == read(data)


@examples(50)
@given(records, st.integers(1, 7), st.integers(1, 5))
def test_windows_are_the_sequence_in_pieces_and_are_found_again(content: list[Any], window: int, block: int) -> None:
    data = written(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = list(sequences(io.BytesIO(data), 1000, window))
        for number, (header, letters) in enumerate(plain(data), start=1):
            mine = [one for one in found if one.number == number]
            assert "".join(one.letters for one in mine) == letters
            assert [len(one.letters) for one in mine[:-1]] == [window] * (len(mine) - 1)
            if len(letters) <= window:
                assert [one.span for one in mine] == [""]
                continue
            for one in mine:
                first, last = map(int, one.span.split("-"))
                assert one.letters == letters[first - 1 : last]
                assert letters_of(io.BytesIO(data), number, first, last) == (header, one.letters)
            assert letters_of(io.BytesIO(data), number, len(letters), len(letters) + 1) is None


def test_case_is_kept_or_folded() -> None:
    assert read(b">a\nACgtN*\n") == [("a", "ACgtN*")]
    assert read(b">a\nACgtN*\n", upper=True) == [("a", "ACGTN*")]
    assert read(b"\xef\xbb\xbf>a\nAC") == [("a", "AC")]


@pytest.mark.parametrize(
    ("data", "reasons"),
    [
        (b"ACGT\nACGT\n>a\nAC\n", ["the text before the first line with `>` belongs to no record; is this FASTA?", ""]),
        (b"just text", ["the text before the first line with `>` belongs to no record; is this FASTA?"]),
        (b">a\n>b x\nAC", ["a: the sequence is empty", ""]),
        (b">", ["the sequence is empty"]),
        (b">a\nAC\nGT1A", ["a: letter 5 is '1'; a sequence has letters, '*' and '-'"]),
        (b">a b\nA\xc3\xa9", [r"a: letter 2 is '\xc3'; a sequence has letters, '*' and '-'"]),
        (b">a\n" + b"AC\n" * 9, [
            "a: the sequence has 18 letters, more than the 16 of maximum_record_bytes; the source's "
            "`letters_per_document` cuts it into documents"
        ]),
    ],
)  # fmt: skip
def test_what_is_no_sequence_says_why(data: bytes, reasons: list[str]) -> None:
    assert [one.reason for one in sequences(io.BytesIO(data), 16)] == reasons


def test_a_window_with_an_odd_letter_does_not_spoil_the_others() -> None:
    found = list(sequences(io.BytesIO(b">a\nACGT\nAC9T\nGG"), 16, window=4))
    assert [(one.letters, one.span) for one in found] == [("ACGT", "1-4"), ("", ""), ("GG", "9-10")]
    assert found[1].reason.startswith("a: letter 7 is '9'")


class Endless(io.RawIOBase):
    """`>x`, then one line of so many letters, made as they are read."""

    def __init__(self, letters: int):
        self.left, self.begun = letters, False

    def read(self, size: int = -1) -> bytes:
        if not self.begun:
            self.begun = True
            return b">x\n"
        size = min(size, self.left)
        self.left -= size
        return b"A" * size


@pytest.mark.parametrize("window", [None, 1 << 20])
def test_a_line_of_100_megabytes_is_never_held(window: int | None) -> None:
    tracemalloc.start()
    try:
        sizes = [
            (len(one.letters), one.reason) for one in sequences(cast(BinaryIO, Endless(100_000_000)), 4 << 20, window)
        ]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20
    if window:
        assert sum(size for size, _ in sizes) == 100_000_000 and len(sizes) == 96
    else:
        assert len(sizes) == 1 and "has 100,000,000 letters" in sizes[0][1]


def test_names_tell_the_format() -> None:
    for name in ("a.fa", "b/c.FNA.gz", "d.faa", "e.fasta"):
        assert format_in(name, SourceConfig(location="x")) == "fasta"
        assert format_in(name, SourceConfig(location="x", format="fasta_upper")) == "fasta_upper"
        assert format_in(name, SourceConfig(location="x", format="jsonl")) == ""
    assert format_in("genome.seq", SourceConfig(location="x", format="fasta")) == "fasta"


GENOME = b">chr1 Made up, complete\r\nacgtACGTNN\r\nGGGGGCCCCC\r\nAT\r\n>chr2\nTTTTT\n>bad\nAC!T\n>none\n"


def test_from_files_to_documents_and_back(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.fna").write_bytes(GENOME)
    (folder / "two.fa.gz").write_bytes(gzip.compress(b">chr3 x\nCAT\n"))
    source = {"location": str(folder), "format": "fasta_upper", "letters_per_document": 10, "license": "CC0-1.0"}
    artifact = run({"s": source}, maximum_unreadable_fraction=0.5, **PLAIN)
    rows = {row["uri"]: row for row in rows_of(artifact, "documents/")}
    assert {uri: row["text"] for uri, row in rows.items()} == {
        "one.fna#1:1-10": "ACGTACGTNN",
        "one.fna#1:11-20": "GGGGGCCCCC",
        "one.fna#1:21-22": "AT",
        "one.fna#2": "TTTTT",
        "two.fa.gz#1": "CAT",
    }
    assert {row["group"] for uri, row in rows.items() if "#1:" in uri} == {"chr1 made up, complete"}
    quarantined = [line for line in artifact.read("quarantine.jsonl").decode().splitlines() if line]
    assert len(quarantined) == 2 and '"record": 3' in quarantined[0] and "letter 3 is '!'" in quarantined[0]
    listing = list_files(folder)
    config = SourceConfig.model_validate(source)
    whole = read_original(listing, "one.fna#2", config)
    assert whole == {"id": "chr2", "title": "chr2", "text": "TTTTT"}
    for uri, row in rows.items():
        assert read_original(listing, uri, config)["text"].upper() == row["text"]
    assert read_original(listing, "one.fna#1:1-10", config)["id"] == "chr1:1-10"


def test_what_comes_before_the_damage_is_read(tmp_path: Path) -> None:
    rng = random.Random(1)
    body = "".join(f">s{i}\n{''.join(rng.choices('ACGT', k=500))}\n" for i in range(400)).encode()
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(body)[:-20_000])
    found = list(read_records(list_files(tmp_path), "x.fa.gz", "fasta"))
    *good, last = found
    assert 50 < len(good) < 400 and [record.number for record in found] == list(range(1, len(found) + 1))
    assert [isinstance(r.value, dict) and r.value["text"] for r in good] == [
        text for _, text in plain(body)[: len(good)]
    ]
    assert isinstance(last.value, BadRecord) and last.value.rest_lost


def test_large_files_are_many_pieces_with_the_same_documents(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    body = b"".join(b">s%d\n%s\n" % (i, b"ACGT"[i % 4 : i % 4 + 1] * (5 + i)) for i in range(60))
    (folder / "x.fa").write_bytes(body)
    whole = rows_of(run({"s": folder}, "whole", **PLAIN), "documents/")
    monkeypatch.setattr("stages.corpus.reading.file_ranges.TASK_BYTES", 300)
    assert rows_of(run({"s": folder}, "cut", **PLAIN), "documents/") == whole
    assert [row["uri"] for row in whole] == [f"x.fa#{i + 1}" for i in range(60)]


def test_a_folder_of_fasta_is_found_without_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "yeast.fna").write_bytes(b">a\nACGT\n")
    fields = sources_in(str(tmp_path))["yeast"].fields
    assert (fields.text, fields.id, fields.title, fields.group) == ("text", "id", "title", "title")


def test_windows_must_fit() -> None:
    source = {"location": "x", "letters_per_document": 4096}
    with pytest.raises(ValueError, match=r"letters_per_document \(4,096\) is more than maximum_record_bytes \(2,048\)"):
        CorpusConfig.model_validate({"sources": {"s": source}, "maximum_record_bytes": 2048})
    with pytest.raises(ValueError, match="letters_per_document is only for FASTA; the format is jsonl"):
        SourceConfig.model_validate(source | {"format": "jsonl"})
