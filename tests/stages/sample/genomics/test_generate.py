"""The synthetic genomes: equal for equal seeds, with the structure and the defects that the truth file lists."""

import gzip
import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from stages.corpus import CorpusConfig, corpus, inputs_of
from stages.corpus.reading.fasta import Sequence, sequences
from stages.evaluation.markov import BEFORE, MarkovModel
from stages.sample.genomics.generate import LICENSES, SATELLITE_UNIT, generate
from stages.sample.stage import SampleConfig, sample
from stages.store import Artifact, Store


class Genomes(NamedTuple):
    folder: Path
    counts: dict[str, Any]
    truth: list[dict[str, Any]]
    records: dict[str, Sequence]
    """By id."""

    def planted(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.truth if row["kind"] == kind]


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> Genomes:
    folder = tmp_path_factory.mktemp("genomes")
    counts = generate(folder, seed=1, megabytes=1.0)
    records = {}
    for path in sorted(folder.glob("documents/*/*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for record in sequences(io.BytesIO(data), 1 << 20):
            assert record.header.split()[0] not in records
            records[record.header.split()[0]] = record
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    return Genomes(folder, counts, truth, records)


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate(tmp_path / name, seed=seed, megabytes=0.1)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_counts_are_those_of_the_files(genomes: Genomes) -> None:
    broken = {"broken-empty", "broken-numbered"}
    assert {name for name, record in genomes.records.items() if record.reason} == broken
    sizes = Counter(name.rsplit("-", 1)[0] for name in genomes.records if name not in broken)
    assert {f"synthetic_{name}": count for name, count in sizes.items()} == {
        source: row["documents"] for source, row in genomes.counts["sources"].items()
    }
    assert sum(len(record.letters) for record in genomes.records.values()) == genomes.counts["bytes"]
    assert genomes.counts["bytes"] == pytest.approx(1e6, rel=0.1)
    assert {source: row["license"] for source, row in genomes.counts["sources"].items()} == LICENSES
    assert genomes.counts["planted"] == Counter(row["kind"] for row in genomes.truth)
    assert any(b"\r\n" in path.read_bytes() for path in genomes.folder.glob("documents/*/*.fna"))


def test_defects_are_those_of_the_truth_file(genomes: Genomes) -> None:
    for row in genomes.planted("soft_masked"):
        assert sum(map(str.islower, genomes.records[row["id"]].letters)) == row["bases"] > 0
    for row in genomes.planted("gap"):
        assert genomes.records[row["id"]].letters.count("N") == row["bases"]
    for row in genomes.planted("exact_duplicate"):
        assert genomes.records[row["id"]].letters == genomes.records[row["of"]].letters
    spoiled = {row["id"] for row in genomes.truth}
    for name, record in genomes.records.items():
        if name not in spoiled:
            assert set(record.letters) <= set("ACGT")
    assert not [row for row in genomes.truth if row["source"] == "synthetic_customer"]


def test_satellites_are_predicted_by_long_contexts_only(genomes: Genomes) -> None:
    """Satellites make bases equal to those one unit before; of new contigs a Markov model hardly knows anything."""
    texts = [record.letters.upper().encode() for record in genomes.records.values() if len(record.letters) > 1000]
    bases = np.frombuffer(b"".join(texts), np.uint8)
    equal = {lag: float((bases[lag:] == bases[:-lag]).mean()) for lag in (SATELLITE_UNIT, SATELLITE_UNIT + 1)}
    assert equal[SATELLITE_UNIT] > 0.5 and equal[SATELLITE_UNIT + 1] < 0.3

    def stream(documents: list[bytes]) -> np.ndarray:
        return np.concatenate([np.array([BEFORE] * 6 + list(text), np.uint16) for text in documents])

    held = len(texts) // 10
    model = MarkovModel.fit(stream(texts[2 * held :]), stream(texts[held : 2 * held]), 6)
    bits = float(model.nll(stream(texts[:held])).mean() / np.log(2))
    assert 1.9 < bits < 2.01


def test_the_corpus_stage_removes_what_the_truth_file_lists(genomes: Genomes, tmp_path: Path) -> None:
    sources = {
        source: {"location": str(genomes.folder / "documents" / source), "format": "fasta_upper", "license": license}
        for source, license in LICENSES.items()
    }
    config = CorpusConfig.model_validate(
        {
            "sources": sources,
            "policy": {"denied_licenses": ["LicenseRef-proprietary"]},
            "edits": {"personal_data": {}, "boilerplate_edge_lines": 0, "boilerplate_paragraph_characters": 0},
            "filters": {"languages": [], "quality": None, "repetition": None, "c4": None},
            "dedup": {"near": False},
            "workers": 1,
        }
    )
    artifact: Artifact = corpus.run(config, inputs_of(config), Store(tmp_path))
    counts, planted = artifact.manifest.counts, genomes.counts["planted"]
    customer = genomes.counts["sources"]["synthetic_customer"]["documents"]
    duplicates = planted["exact_duplicate"]
    assert counts["quarantined"] == planted["empty"] + planted["numbered"]
    assert counts["kept"] + counts["heldout"] == genomes.counts["documents"] - customer - duplicates
    rules = json.loads(artifact.read("summary.json"))["rules"]
    assert sum(of.get("exact_duplicate", 0) for of in rules.values()) == duplicates
    assert rules["synthetic_customer"] == {"policy_license": customer}


def test_the_stage_generates_genomes(tmp_path: Path) -> None:
    artifact = sample.run(SampleConfig(domain="genomics", megabytes=0.1), {}, Store(tmp_path))
    assert artifact.files("documents/synthetic_isolates/") and artifact.manifest.counts["planted empty"] == 1


def test_too_small_a_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is too small; it needs at least 0.1"):
        generate(tmp_path, megabytes=0.01)
