"""Bad records are counted and kept with file, line and reason; too many of them stop the stage."""

from __future__ import annotations

import gzip
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import read_original, source_listing
from stages.corpus.config import SourceConfig
from stages.store import Artifact, InputError
from tests.stages.corpus.corpus_world import rows_of, sentence, write_lines

Run = Callable[..., Artifact]


def good(number: int) -> dict[str, Any]:
    return {"id": number, "text": sentence(number)}


def quarantine(artifact: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.read("quarantine.jsonl").splitlines()]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "never ended', "broken JSON"),
        (b'["text"]', "a JSON list, not an object"),
        (b'{"text": "a", "text": "b"}', "the key 'text' occurs more than once"),
        (b'{"id": 3}', "no field 'text'; there are: id"),
        (b'{"text": 5}', "field 'text' is of type number, not string"),
        (b'{"text": null}', "field 'text' is null"),
        (b'{"text": "  "}', "field 'text' is empty"),
        (b'{"text": "caf\xe9"}', "invalid UTF-8: invalid continuation byte at byte 13"),
        (b'{"text": "half a pair \\ud800"}', "lone surrogate: no low surrogate"),
        (b'{"text": "the other half \\udc00"}', "lone surrogate: "),
        (b'{"text": ' + b"[" * 1100 + b"]" * 1100 + b"}", "the record has 2,210 bytes, more than the 1,400"),
        (b'{"text": 1e999}', "broken JSON: number is infinity"),
        (b'{"text": "' + b"long " * 300 + b'"}', "the record has 1,512 bytes, more than the 1,400"),
    ],
)
def test_a_bad_line_is_quarantined(tmp_path: Path, run: Run, line: bytes, reason: str) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [good(1), b"", line, good(2)])
    artifact = run({"s": tmp_path / "in"}, maximum_record_bytes=1400)
    (bad,) = quarantine(artifact)
    assert (bad["source"], bad["file"], bad["record"]) == ("s", "x.jsonl", 3)
    assert bad["reason"].startswith(reason)
    counts = artifact.manifest.counts
    assert (counts["in"], counts["quarantined"], counts["kept"] + counts["heldout"]) == (3, 1, 2)


def test_a_truncated_gzip_keeps_what_came_before(tmp_path: Path, run: Run) -> None:
    path = write_lines(tmp_path / "in" / "x.jsonl.gz", [good(i) for i in range(300)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    artifact = run({"s": tmp_path / "in"})
    (bad,) = quarantine(artifact)
    assert bad["rest_lost"] and "cannot be read any further" in bad["reason"]
    assert 0 < artifact.manifest.counts["kept"] < 299
    assert bad["record"] == artifact.manifest.counts["in"]
    warnings = [event["message"] for event in artifact.events().read()[0] if event["type"] == "warning"]
    assert any(f"{tmp_path}/in/x.jsonl.gz cannot be read to its end" in message for message in warnings)


def test_a_damaged_gzip_and_a_damaged_parquet_are_no_crash(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    write_lines(folder / "good.jsonl", [good(i) for i in range(5)])
    noise = bytearray(gzip.compress(json.dumps(good(9)).encode() * 50))
    noise[40:60] = random.Random(1).randbytes(20)
    (folder / "x.jsonl.gz").write_bytes(bytes(noise))
    (folder / "y.parquet").write_bytes(b"PAR1 this is not it PAR1")
    artifact = run({"s": folder}, maximum_unreadable_fraction=0.9)
    assert {bad["file"] for bad in quarantine(artifact)} == {"x.jsonl.gz", "y.parquet"}


def test_parquet_rows_and_text_files_have_places_too(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    texts = [sentence(1), None, sentence(2), " "]
    pq.write_table(pa.table({"text": texts, "id": [1, 2, 3, 4]}), folder / "a.parquet")
    (folder / "b.txt").write_text(sentence(3))
    (folder / "c.txt").write_bytes(b"caf\xe9 au lait")
    artifact = run({"s": folder}, maximum_unreadable_fraction=0.9)
    assert [(bad["file"], bad["record"]) for bad in quarantine(artifact)] == [
        ("a.parquet", 2),
        ("a.parquet", 4),
        ("c.txt", 1),
    ]
    assert artifact.manifest.counts["kept"] + artifact.manifest.counts["heldout"] == 3


def test_too_many_bad_records_stop_the_stage_and_say_where(tmp_path: Path, run: Run) -> None:
    lines = [good(i) for i in range(97)]
    write_lines(tmp_path / "in" / "x.jsonl", [*lines, b"{", b"{", b"{"])
    with pytest.raises(InputError, match=r"3 of 100 records of source s") as error:
        run({"s": tmp_path / "in"})
    assert f"{tmp_path}/in/x.jsonl:98: broken JSON" in str(error.value)
    assert "corpus.maximum_unreadable_fraction" in str(error.value)
    write_lines(tmp_path / "t" / "y.jsonl", [b"{"] * 3)
    with pytest.raises(InputError, match=r"3 of 100 records of source s .*; 3 of 3 records of source t "):
        run({"s": tmp_path / "in", "t": tmp_path / "t"})
    assert run({"s": tmp_path / "in"}, maximum_unreadable_fraction=0.03).manifest.counts["quarantined"] == 3


def test_up_to_two_bad_records_are_put_up_with_beside_good_ones_only(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [good(1), b"{", b"{"])
    assert run({"s": tmp_path / "in"}).manifest.counts["quarantined"] == 2
    write_lines(tmp_path / "bad" / "x.jsonl", [b"{"])
    with pytest.raises(InputError, match=r"1 of 1 records .*x\.jsonl:1"):
        run({"s": tmp_path / "bad"})


def test_empty_files_and_missing_ones(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        run({"s": tmp_path / "in"})
    (tmp_path / "in" / "x.jsonl").write_text("")
    with pytest.raises(InputError, match=r"has no documents; not read: empty: 1 \(x\.jsonl\)"):
        run({"s": tmp_path / "in"})
    with pytest.raises(InputError, match="does not exist"):
        run({"s": tmp_path / "gone"})


def test_a_broken_evaluation_set_is_an_error_with_its_line(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [good(1)])
    sets = {"exam": str(write_lines(tmp_path / "exam.jsonl", [{"question": "q"}, {"id": 3}]))}
    with pytest.raises(InputError, match=r"evaluation set exam: .*exam\.jsonl:2: no field 'question'"):
        run({"s": tmp_path / "in"}, decontamination={"sets": sets})


def test_a_uri_leads_back_to_its_record(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "deep" / "x.jsonl.gz", [b"{", *[good(i) for i in range(20)]])
    listing = source_listing(SourceConfig(location=str(tmp_path / "in")))
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    for row in rows_of(artifact, "documents/"):
        assert read_original(listing, row["uri"])["text"] == row["text"]
    with pytest.raises(InputError, match="no record"):
        read_original(listing, "deep/x.jsonl.gz#99")


def test_strange_texts_are_documents(tmp_path: Path, run: Run) -> None:
    """NUL bytes, texts without a space, line ends of other systems, ids that are empty or repeat: all are read."""
    strange = [f"{sentence(1)} \x00 and more.", f"{sentence(2)} {'x' * 200}", f"\ufeff{sentence(3)}\r\nMore.\rLess."]
    rows: list[dict[str, Any]] = [{"id": "" if i else None, "text": text} for i, text in enumerate(strange)]
    rows += [{"id": 7, "text": sentence(number)} for number in (4, 5)]
    lines = [json.dumps(row).encode() + b"\r" for row in rows]
    write_lines(tmp_path / "in" / "x.jsonl", lines)
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0, dedup={"near": False})
    assert rows_of(artifact, "removed/") == []
    texts = {row["uri"]: row["text"] for row in rows_of(artifact, "documents/")}
    assert len(texts) == 5 and "\x00" in texts["x.jsonl#1"] and texts["x.jsonl#3"].endswith("\nMore.\nLess.")
    assert json.loads(artifact.read("summary.json"))["repeated_ids"] == {"s": 1}


def test_texts_without_any_space_end(tmp_path: Path, run: Run) -> None:
    rows = [
        good(1),
        {"text": "x" * 5_000_000},
        {"text": "é,;" * 500_000},
        {"text": "字" * 300_000},
        {"text": "\n" * 10},
    ]
    write_lines(tmp_path / "in" / "x.jsonl", rows)
    artifact = run(
        {"s": tmp_path / "in"}, heldout_fraction=0, maximum_unreadable_fraction=0.5, filters={"languages": []}
    )
    assert artifact.manifest.counts["in"] == 5 and len(rows_of(artifact, "documents/")) >= 1
    assert {row["rule"] for row in rows_of(artifact, "removed/")} <= {"quality_short", "quality_long_words"}


def test_a_file_in_another_encoding_is_named(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [good(1)])
    (tmp_path / "in" / "y.jsonl").write_text(json.dumps(good(2)) + "\n", encoding="utf-16")
    (bad,) = quarantine(run({"s": tmp_path / "in"}))
    assert bad["reason"] == "the file is UTF-16; JSON Lines are read as UTF-8 only: convert it" and bad["rest_lost"]


def test_a_parquet_row_that_is_no_text_is_lost_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    texts = [sentence(i).encode() for i in range(5)]
    texts[2] = b"caf\xe9 au lait"
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "in" / "x.parquet")
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    (bad,) = quarantine(artifact)
    assert bad["record"] == 3 and bad["reason"].startswith("invalid UTF-8") and "rest_lost" not in bad
    assert {row["uri"] for row in rows_of(artifact, "documents/")} == {f"x.parquet#{i}" for i in (1, 2, 4, 5)}


def test_a_large_record_is_read_and_a_huge_one_is_not_held(tmp_path: Path, run: Run) -> None:
    text = " ".join(sentence(i) for i in range(14_000))
    write_lines(tmp_path / "in" / "x.jsonl", [good(1), {"text": text}, b"z" * 12_000_000, good(2)])
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0, maximum_record_bytes=10_000_000)
    (bad,) = quarantine(artifact)
    assert (bad["record"], bad["reason"][:37]) == (3, "the record has 12,000,000 bytes, more")
    removed = [row["rule"] for row in rows_of(artifact, "removed/")]
    assert removed == ["quality_long"], "a document of half a million words"


def test_many_copies_leave_one(tmp_path: Path, run: Run) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [{"text": sentence(1)}] * 20_000)
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    assert artifact.manifest.counts["removed_exact_duplicate"] == 19_999
    assert {row["detail"] for row in rows_of(artifact, "removed/")} == {"s/x.jsonl#1"}


@pytest.mark.full
def test_a_line_of_a_gigabyte_and_a_million_copies(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in" / "x.jsonl"
    path.parent.mkdir()
    with path.open("wb") as out:
        out.write(json.dumps(good(1)).encode() + b'\n{"text": "')
        for _ in range(1024):
            out.write(b"a" * (1 << 20))
        out.write(b'"}\n' + (json.dumps(good(2)).encode() + b"\n") * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    counts = artifact.manifest.counts
    assert (counts["in"], counts["quarantined"], counts["kept"]) == (1_000_002, 1, 2)
    assert counts["removed_exact_duplicate"] == 999_999
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "kilobytes"
