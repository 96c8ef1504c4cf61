"""The sources in a folder that no recipe describes, and what of a folder is not read."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import CorpusConfig, SourceConfig, inputs_of, source_listing
from stages.corpus.reading.names import mark_of
from stages.corpus.reading.sources import MOST_SUBFOLDERS, find_sources, readable, sources_in
from stages.corpus.reading.unread import Unread, describe_unread
from stages.store import Artifact, InputError
from tests.stages.corpus.corpus_world import sentence, write_lines

Run = Callable[..., Artifact]


def write(path: Path, text: str = "A text of some words.") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def reasons(unread: tuple[Unread, ...]) -> dict[str, int]:
    return {one.reason: one.count for one in unread}


def test_loose_files_are_one_source_and_subfolders_sources_of_their_own(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / f"{number}.txt", sentence(number))
    write(tmp_path / "UPPER.TXT")
    write(tmp_path / "letters" / "a.txt")
    write(tmp_path / "letters" / "deep" / "b.txt")
    found = find_sources(str(tmp_path))
    assert found.files == {"letters": 2, "txt": 31}
    assert {len(source_listing(source).files) for source in found.sources.values()} == {2, 31}
    assert "letters/a.txt" not in [file.name for file in source_listing(found.sources["txt"]).files]


def test_parts_of_one_table_are_one_source(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"body": [sentence(number)]}), tmp_path / f"part-{number:05}.parquet")
    (source,) = sources_in(str(tmp_path)).values()
    assert source.fields.text == "body" and len(source_listing(source).files) == 3


def test_loose_files_with_other_text_fields_are_read_apart(tmp_path: Path) -> None:
    for name, field in [("a", "text"), ("b", "text"), ("c[1]", "body"), ("d", "body")]:
        write_lines(tmp_path / f"{name}.jsonl", [{field: sentence(1)}])
    write(tmp_path / "n1.txt")
    write(tmp_path / "n2.txt")
    pq.write_table(pa.table({"abstract": ["x y z"]}), tmp_path / "papers.parquet")
    found = find_sources(str(tmp_path))
    listed = {name: [file.name for file in source_listing(s).files] for name, s in found.sources.items()}
    assert listed == {
        "jsonl text": ["a.jsonl", "b.jsonl"],
        "jsonl body": ["c[1].jsonl", "d.jsonl"],
        "txt": ["n1.txt", "n2.txt"],
        "papers": ["papers.parquet"],
    }
    assert [found.sources[name].fields.text for name in ("jsonl text", "jsonl body", "papers")] == [
        "text",
        "body",
        "abstract",
    ]


def test_loose_files_whose_names_differ_only_in_case_belong_to_one_source_each(tmp_path: Path) -> None:
    for name, field in [("A", "text"), ("B", "text"), ("a", "body"), ("b", "body")]:
        write_lines(tmp_path / f"{name}.jsonl", [{field: sentence(1)}])
    listed = {name: [f.name for f in source_listing(s).files] for name, s in sources_in(str(tmp_path)).items()}
    assert listed == {"jsonl text": ["A.jsonl", "B.jsonl"], "jsonl body": ["a.jsonl", "b.jsonl"]}


def test_where_the_folder_lies_and_what_it_is_called_changes_no_source(tmp_path: Path) -> None:
    for folder in ("first", "Zweite"):
        for number in range(3):
            write(tmp_path / folder / f"{number}.txt")
    one, other = (inputs_of(CorpusConfig(sources=sources_in(str(tmp_path / folder)))) for folder in ("first", "Zweite"))
    assert {role: item.digest for role, item in one.items()} == {role: item.digest for role, item in other.items()}


def test_many_subfolders_are_one_source_with_a_note(tmp_path: Path) -> None:
    for number in range(MOST_SUBFOLDERS + 1):
        write(tmp_path / f"{number}" / "a.txt")
    write(tmp_path / "loose.txt")
    found = find_sources(str(tmp_path))
    assert found.files == {"documents": MOST_SUBFOLDERS + 2}
    assert f"{MOST_SUBFOLDERS + 1} subfolders" in found.notes[0]
    (tmp_path / "0" / "a.txt").unlink()
    assert len(sources_in(str(tmp_path))) == MOST_SUBFOLDERS + 1 and not find_sources(str(tmp_path)).notes


def test_names_in_any_script(tmp_path: Path) -> None:
    folders = ["日本語", "العربية", "Données", "Donnees", "x" * 250, "-", "🎉"]
    for folder in folders:
        write(tmp_path / folder / "a.txt")
    sources = sources_in(str(tmp_path))
    assert CorpusConfig(sources=sources)
    assert len(sources) == len(folders) and {"Données", "Donnees"} & set(sources) == {"Donnees"}
    assert max(map(len, sources)) <= 128 + 9
    assert {Path(source.location).name for source in sources.values()} == set(folders)


def test_a_source_has_one_name_in_both_unicode_forms(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path / form / unicodedata.normalize(form, "日本語ガ") / "a.txt")
    assert list(sources_in(str(tmp_path / "NFC"))) == list(sources_in(str(tmp_path / "NFD")))


def test_a_source_without_a_readable_record_has_a_note(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no JSON\n")
    write_lines(tmp_path / "sub" / "good.jsonl", [{"text": "a"}])
    (note,) = find_sources(str(tmp_path)).notes
    assert note.startswith("source bad: none of its records can be read")


def test_no_folder_takes_the_name_of_another(tmp_path: Path) -> None:
    one_letter = ["\u1ec7", "e\u0323\u0302", "\u1eb9\u0302", "\u00ea\u0323"]  # all the same in Unicode NFC
    folders = ["e", f"e-{mark_of(one_letter[0])}", *one_letter]
    for folder in folders:
        write(tmp_path / folder / "a.txt")
    sources = sources_in(str(tmp_path))
    assert {Path(source.location).name for source in sources.values()} == set(folders)
    assert CorpusConfig(sources=sources)


ODD = (
    "a::b.txt",
    "file::c.txt",
    "#d?.txt",
    "e*[f].txt",
    "%20.txt",
    " g .txt",
    "h\n.txt",
    "i\\.txt",
    "s3:.txt",
    "é.txt",
)


def test_files_with_odd_names_are_read(tmp_path: Path, run: Run) -> None:
    for number, name in enumerate(ODD):
        write(tmp_path / "in" / "sub::1" / name, sentence(number))
    sources = sources_in(str(tmp_path / "in"))
    artifact = run({"s": tmp_path / "in" / "sub::1"}, heldout_fraction=0)
    assert artifact.manifest.counts["kept"] == len(ODD) and list(sources) == ["sub__1"]
    assert len(source_listing(SourceConfig(location=f"file://{tmp_path}/in")).files) == len(ODD)
    write(tmp_path / os.fsdecode(b"in/sub::1/\xff.txt"))
    unread = find_sources(str(tmp_path / "in")).unread
    assert describe_unread(unread) == ["name is not UTF-8: 1 (sub::1/\\udcff.txt)"]


def test_objects_with_odd_names_are_read(bucket: str) -> None:
    fs, root = fsspec.core.url_to_fs(bucket)
    names = [name for name in ODD if "\n" not in name]
    for name in [*names, "~$lock.docx", ".hidden/x.txt", ".hidden/y.txt", "empty.txt", "scan.PDF"]:
        fs.pipe_file(f"{root}/odd/sub::1/{name}", b"" if name == "empty.txt" else b"text")
    (source,) = sources_in(f"{bucket}/odd").values()
    listing = source_listing(source)
    assert [file.name for file in listing.files] == sorted(names)
    assert {listing.open(file.name).read() for file in listing.files} == {b"text"}
    assert reasons(listing.unread) == {
        "empty": 1,
        "hidden": 1,
        "made by the operating system or an editor": 1,
        "no reader for .pdf": 1,
    }


UNREADABLE = ("a.pdf", "b.PDF", "c.docx", "d.jsonl.zst", "LICENSE.txt", "README.txt", "Makefile")


def test_what_is_not_read_is_part_of_the_listing_and_not_of_its_digest(tmp_path: Path) -> None:
    write(tmp_path / "ok.txt")
    digest = source_listing(SourceConfig(location=str(tmp_path))).digest
    for name in UNREADABLE:
        write(tmp_path / name)
    write(tmp_path / "empty.txt", "")
    listing = source_listing(SourceConfig(location=str(tmp_path)))
    assert listing.digest == digest
    assert reasons(listing.unread) == {
        "no reader for .pdf": 2,
        "describes the folder, no document": 2,
        "empty": 1,
        "no reader for .docx": 1,
        "no reader for .jsonl.zst": 1,
        "no suffix that names a format": 1,
    }
    assert readable(listing, SourceConfig(location=str(tmp_path))) == listing


def test_a_folder_without_documents_is_refused_with_what_it_has(tmp_path: Path) -> None:
    for name in UNREADABLE:
        write(tmp_path / "in" / name)
    with pytest.raises(InputError, match=r"no documents; not read: .*\.pdf: 2 \(in/a\.pdf, in/b\.PDF\).*Files that"):
        sources_in(str(tmp_path))
    write(tmp_path / "blank" / "x.jsonl", "")
    with pytest.raises(InputError, match=r"empty: 1 \(x\.jsonl\)"):
        sources_in(str(tmp_path / "blank"))


def test_the_stage_reports_what_it_does_not_read(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "in" / "a.txt", sentence(1))
    before = run({"s": tmp_path / "in"}, heldout_fraction=0)
    write(tmp_path / "in" / "b.pdf")
    again = run({"s": tmp_path / "in"}, heldout_fraction=0)
    assert again.manifest == before.manifest, "nothing is rebuilt for it"
    write(tmp_path / "in" / "c.txt", sentence(2))
    after = run({"s": tmp_path / "in"}, heldout_fraction=0)
    assert before.manifest.details["unread"] == {}
    assert after.manifest.details["unread"] == {"s": [{"reason": "no reader for .pdf", "count": 1, "names": ["b.pdf"]}]}
    warnings = [event["message"] for event in after.events().read()[0] if event["type"] == "warning"]
    assert "source s: 1 not read; the report names them" in warnings


def test_blank_text_files_are_counted_and_stop_nothing(tmp_path: Path, run: Run) -> None:
    for number in range(4):
        write(tmp_path / "in" / f"{number}.txt", sentence(number))
        write(tmp_path / "in" / f"blank {number}.txt", " \n" * number)
    artifact = run({"s": tmp_path / "in"}, heldout_fraction=0)
    assert [artifact.manifest.counts[name] for name in ("in", "kept", "quarantined")] == [7, 4, 3]
    assert artifact.manifest.details["unread"]["s"][0] == {"reason": "empty", "count": 1, "names": ["blank 0.txt"]}
    write(tmp_path / "only blank" / "x.txt", "\n")
    with pytest.raises(InputError, match="have no documents"):
        run({"s": tmp_path / "only blank"})
