"""The files of generate(): determinism, counts, licences, and a truth file that agrees with the texts."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stages.sample.biomed import DENIED, LICENSES, generate
from stages.sample.biomed.planted import BOILERPLATE, NEAR_JACCARD, jaccard, shingles

KINDS = {
    "exact_duplicate",
    "near_duplicate",
    "boilerplate",
    "language",
    "personal_data",
    "junk",
    "contaminated",
}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_and_size_give_the_same_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert generate(one, seed=5, megabytes=0.3) == generate(two, seed=5, megabytes=0.3)
    assert digests(one) == digests(two)


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    results = []
    for hash_seed in ("0", "77"):
        folder = tmp_path / hash_seed
        command = [sys.executable, "-m", "stages.sample", str(folder), "--seed", "3", "--megabytes", "0.2"]
        root = Path(__file__).parents[4]
        # The child's environment is this process's, but for the seed that orders sets and hashes.
        script = f'PYTHONHASHSEED={hash_seed} exec "$@"'
        done = subprocess.run(["sh", "-c", script, "sh", *command], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["documents"] > 100
        results.append(digests(folder))
    assert results[0] == results[1]


def test_another_seed_gives_other_documents_and_questions(tmp_path):
    generate(tmp_path / "a", seed=1, megabytes=0.2)
    generate(tmp_path / "b", seed=2, megabytes=0.2)
    a, b = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] == b[name]] == []


def test_questions_do_not_depend_on_the_size(tmp_path, sample):
    generate(tmp_path, seed=1, megabytes=0.2)
    for name in ("medqa_synthetic", "pubmedqa_synthetic"):
        path = f"eval/{name}.jsonl"
        assert (tmp_path / path).read_bytes() == (sample.folder / path).read_bytes()


def test_too_small_a_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is too small; it needs at least"):
        generate(tmp_path, megabytes=0.01)
    assert list(tmp_path.iterdir()) == []


def test_smallest_size_plants_every_kind(tmp_path):
    assert generate(tmp_path, megabytes=0.1)["planted"].keys() == KINDS


def test_counts_are_those_of_the_files(sample):
    by_source = Counter(row["source"] for row in sample.documents.values())
    assert by_source == {name: source["documents"] for name, source in sample.counts["sources"].items()}
    assert sample.counts["documents"] == len(sample.documents)
    size = Counter()
    for row in sample.documents.values():
        size[row["source"]] += len(row["text"].encode())
    assert size == {name: source["bytes"] for name, source in sample.counts["sources"].items()}
    assert sample.counts["bytes"] == sum(size.values()) == pytest.approx(sample.megabytes * 1e6, rel=0.06)
    assert sample.counts["planted"] == Counter(row["kind"] for row in sample.truth)


def test_records_have_all_fields_and_their_source_s_licence(sample):
    fields = ["id", "text", "url", "title", "license", "group", "retrieved_at"]
    for row in sample.documents.values():
        assert [name for name in row if name != "source"] == fields
        assert all(isinstance(row[name], str) and row[name] for name in fields)
        assert row["license"] == LICENSES[row["source"]]
        assert re.fullmatch(rf"synthetic://{row['source']}/\d+", row["url"])
    assert len({row["url"] for row in sample.documents.values()}) == len(sample.documents)
    assert len(set(LICENSES.values())) == 4
    assert LICENSES[DENIED] == "LicenseRef-proprietary"


def test_everything_is_marked_as_synthetic(sample):
    assert "SYNTHETIC" in (sample.folder / "README.txt").read_text().splitlines()[0]
    assert all(name.startswith("synthetic_") for name in LICENSES)
    assert {path.name for path in (sample.folder / "documents").iterdir()} == set(LICENSES)


def test_gzip_headers_carry_neither_name_nor_time(sample):
    for path in (sample.folder / "documents").glob("*/*.gz"):
        header = path.read_bytes()[:10]
        assert header[3] == 0 and header[4:8] == bytes(4)
        gzip.decompress(path.read_bytes())


def test_truth_refers_to_documents_and_kinds_are_disjoint(sample):
    assert {row["kind"] for row in sample.truth} == KINDS
    for row in sample.truth:
        assert sample.documents[row["id"]]["source"] == row["source"] != DENIED
    ids = [row["id"] for row in sample.truth]
    originals = [row["of"] for row in sample.truth if "of" in row]
    assert len(set(ids + originals)) == len(ids) + len(originals)
    assert set(originals) <= sample.documents.keys()


def test_proportions(sample):
    share = {kind: number / len(sample.documents) for kind, number in sample.counts["planted"].items()}
    wanted = {"exact_duplicate": 0.03, "near_duplicate": 0.04, "boilerplate": 0.08, "language": 0.02}
    wanted |= {"personal_data": 0.04, "junk": 0.03}
    for kind, value in wanted.items():
        assert share[kind] == pytest.approx(value, rel=0.1), kind


def test_exact_duplicates_are_exact_and_no_other_texts_are_equal(sample):
    rows = sample.planted("exact_duplicate")
    for row in rows:
        assert sample.documents[row["id"]]["text"] == sample.documents[row["of"]]["text"]
    assert any(row["source"] != sample.documents[row["of"]]["source"] for row in rows)
    texts = Counter(row["text"] for row in sample.documents.values())
    assert sum(number - 1 for number in texts.values()) == len(rows)


def test_near_duplicates_are_near_but_not_equal(sample):
    for row in sample.planted("near_duplicate"):
        copy, original = sample.documents[row["id"]]["text"], sample.documents[row["of"]]["text"]
        assert NEAR_JACCARD <= jaccard(shingles(copy), shingles(original)) < 1
        old, new = original.split(), copy.split()
        assert len(old) == len(new)
        changed = sum(a != b for a, b in zip(old, new, strict=True))
        assert 0 < changed <= row["replaced_words"]
        assert 0.02 <= row["replaced_words"] / len(old) <= 0.06


def test_boilerplate_lines_recur_verbatim_and_nowhere_else(sample):
    planted = {row["id"]: row["line"] for row in sample.planted("boilerplate")}
    lines = Counter(planted.values())
    assert lines.keys() <= set(BOILERPLATE) and min(lines.values()) >= 10
    for name, row in sample.documents.items():
        text_lines = row["text"].split("\n")
        found = [line for line in BOILERPLATE if line in text_lines]
        assert found == ([planted[name]] if name in planted else [])


def test_languages_are_marked_by_their_own_words(sample):
    words = {"es": {"que", "el", "los"}, "de": {"der", "und", "nicht"}, "fr": {"les", "le", "est"}}
    rows = sample.planted("language")
    assert {row["lang"] for row in rows} == words.keys()
    for row in rows:
        found = set(sample.documents[row["id"]]["text"].lower().split())
        assert found & words[row["lang"]], row
        assert not found & {"the", "and", "with"}


def test_personal_strings_stand_in_notes_and_are_reserved_ones(sample):
    patterns = {
        "email": r"[\w.]+@(mail\.)?example\.(org|com|net)",
        "phone": r"(\(\d{3}\) |\d{3}[-.]|\+1 \d{3} )555[-. ]01\d\d",
        "ssn": r"9\d\d-[1-4]\d-\d{4}",
        "ip": r"(192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}",
        "mrn": r"MRN \d{7}",
    }
    seen = Counter()
    for row in sample.planted("personal_data"):
        assert row["source"] == "synthetic_notes" and row["strings"]
        for string in row["strings"]:
            assert string in sample.documents[row["id"]]["text"]
            seen.update([next(name for name, pattern in patterns.items() if re.fullmatch(pattern, string))])
    assert seen.keys() == patterns.keys()


def test_no_personal_data_outside_the_truth(sample):
    pattern = re.compile(r"@|\b555\b|\d{3}-\d{2}-\d{4}|\d+\.\d+\.\d+\.\d+|\bMRN\b")
    planted = {row["id"]: row.get("strings", []) for row in sample.truth}
    junk = {row["id"] for row in sample.planted("junk")}
    for name, row in sample.documents.items():
        text = row["text"]
        for string in planted.get(name, []):
            text = text.replace(string, "")
        assert name in junk or not pattern.search(text), text


def test_junk_is_junk(sample):
    rows = sample.planted("junk")
    assert len({row["subkind"] for row in rows}) == 5
    for row in rows:
        text = sample.documents[row["id"]]["text"]
        words, lines = text.split(), text.split("\n")
        match row["subkind"]:
            case "repeated_lines":
                assert len(set(lines)) <= 2 < len(lines) / 2
            case "symbol_noise":
                assert sum(not re.search(r"[a-z]", word) for word in words) > 0.3 * len(words)
            case "too_short":
                assert len(words) < 30
            case "no_stop_words":
                assert not {"the", "be", "to", "of", "and", "that", "have", "with"} & set(text.lower().split())
            case "all_caps_menu":
                assert text == text.upper() and "|" in text
