"""What is not read is counted by reason and named."""

from __future__ import annotations

import pytest

from stages.corpus.reading.unread import (
    MOST_REASONS,
    MOST_SHORT_REASONS,
    Unread,
    count_unread,
    describe_unread,
    ignored_part,
    no_reader,
)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a/b.PDF", ".pdf"),
        ("x.jsonl.zst", ".jsonl.zst"),
        ("x.tar.gz", ".tar.gz"),
        ("report.v2.docx", ".docx"),
        ("x.7z", ".7z"),
        ("x.bz2", ".bz2"),
    ],
)
def test_suffixes(name: str, suffix: str) -> None:
    assert no_reader(name) == f"no reader for {suffix}"


@pytest.mark.parametrize("name", ["Makefile", "scan.001", "a.b c", "x.averyveryverylongend", "sub.dir/file"])
def test_names_without_a_suffix_share_a_reason(name: str) -> None:
    assert no_reader(name) == "no suffix that names a format"


def test_counts_are_by_reason_and_add_up() -> None:
    found = count_unread([("hidden", "b"), ("no reader for .pdf", "y\n.pdf"), ("hidden", "a")])
    assert found == (Unread("hidden", 2, ("a", "b")), Unread("no reader for .pdf", 1, ("y\\n.pdf",)))
    more = count_unread([("hidden", name) for name in "zyx"], found)
    assert more[0] == Unread("hidden", 5, ("a", "b", "x"))
    assert describe_unread(more) == ["hidden: 5 (a, b, x and 2 more)", "no reader for .pdf: 1 (y\\n.pdf)"]


def test_many_reasons_are_summed_up() -> None:
    found = count_unread([(f"reason {number:03}", "x") for number in range(MOST_REASONS + MOST_SHORT_REASONS + 5)])
    lines = describe_unread(found)
    assert len(lines) == MOST_REASONS + 1
    assert lines[-1].startswith("reason 020: 1; reason 021: 1; ") and lines[-1].endswith("; 5 other reasons: 5")
    assert describe_unread(found[: MOST_REASONS + 2])[-1] == "reason 020: 1; reason 021: 1"


def test_a_hidden_folder_is_one_entry() -> None:
    assert ignored_part("a/.git/objects/x.txt") == ("hidden", "a/.git/")
    assert ignored_part("a/b.txt") is None
