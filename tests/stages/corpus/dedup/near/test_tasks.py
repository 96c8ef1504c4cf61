"""Near copies over chunks: the same as in memory, however the corpus is cut and however little memory there is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.corpus_near import near_duplicates_of
from stages.corpus.chunks import Chunk, row_offsets
from stages.corpus.config import CorpusConfig, DedupConfig, SourceConfig
from stages.corpus.dedup.near import gather, tasks
from stages.corpus.dedup.near.candidates import components
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.tables import write_chunk
from stages.corpus.texts import Texts

Row = dict[str, str | int]


def documents(seed: int) -> list[Row]:
    """300 pages and 300 copies with some words replaced, shuffled; text, doc_id, licence, subject."""
    draw = np.random.default_rng(seed)
    vocabulary = np.array([f"word{i}" for i in range(3000)])
    pages = [draw.choice(vocabulary, draw.integers(1, 80)) for _ in range(300)]
    copies = [np.where(draw.random(len(page)) < 0.04, draw.choice(vocabulary, len(page)), page) for page in pages]
    rows: list[Row] = []
    for i, words in enumerate(pages + copies):
        text = " ".join(words.tolist())
        known = "MIT" if draw.random() < 0.5 else "unknown"
        rows.append({"doc_id": f"{i:032x}", "text": text, "license": known, "subject": "", "characters": len(text)})
    return [rows[i] for i in draw.permutation(len(rows))]


def written(rows: list[Row], size: int, config: DedupConfig, folder: Path) -> list[Chunk]:
    """Chunks of two sources, each half of the rows, with their keys."""
    chunks: list[Chunk] = []
    half = len(rows) // 2
    for source, first, last in (("a", 0, half), ("b", half, len(rows))):
        for begin in range(first, last, size):
            mine = rows[begin : min(begin + size, last)]
            table = pa.Table.from_pylist(mine)
            table = table.append_column("file", pa.array([source] * len(mine)))
            table = table.append_column("file_range", pa.array([0] * len(mine), pa.int32()))
            table = table.append_column("record", pa.array(range(1, len(mine) + 1), pa.int64()))
            table = table.append_column("span", pa.array([""] * len(mine)))
            name = f"{len(chunks):05}"
            write_chunk(table, folder / name)
            texts = Texts.of([str(row["text"]) for row in mine])
            grams = ngram_hashes(*word_hashes(texts.data, texts.offsets), config.ngram_size)
            keys = band_hashes(*grams, config.bands, config.band_rows, config.seed)
            keys[:, [i for i, row in enumerate(mine) if row["license"] == "removed"]] = NO_KEY
            keys.tofile(folder / f"{name}.bands")
            chunks.append(Chunk(name, source, len(mine), (begin - first,)))
    return chunks


def found_in(rows: list[Row], size: int, config: CorpusConfig, folder: Path) -> list[tuple[int, str, float, str]]:
    folder.mkdir()
    chunks = written(rows, size, config.dedup, folder)
    assert row_offsets(chunks)[-1] == len(rows)
    candidates = tasks.find_candidates(config, chunks, folder)
    candidates.save(folder)
    groups = gather.gather_groups(chunks, folder)
    assert sorted(number for group in groups for number in group) == list(range(len(chunks)))
    for rank in range(len(groups)):
        assert list(gather.GatherCandidates(groups, chunks, folder, folder, config.dedup).run(rank=rank)) == []
    step = tasks.CompareCandidates(folder, len(groups), config.dedup)
    for rank in range(candidates.count):
        assert list(step.run(rank=rank)) == []
    table = tasks.removals(candidates.count, chunks, folder, folder)
    return list(zip(*(table[n].to_pylist() for n in ("row", "survivor", "similarity", "where")), strict=True))


def config_of() -> CorpusConfig:
    sources = {"a": SourceConfig(location="a"), "b": SourceConfig(location="b")}
    return CorpusConfig(sources=sources)


def test_chunks_give_what_memory_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, config = documents(1), config_of()
    order = sorted(
        range(len(rows)),
        key=lambda i: (rows[i]["license"] == "unknown", i >= 300, -int(rows[i]["characters"]), rows[i]["doc_id"]),
    )
    expected = sorted(
        (order[copy.document], str(rows[order[copy.survivor]]["doc_id"]), copy.similarity)
        for copy in near_duplicates_of(Texts.of([str(rows[i]["text"]) for i in order]), config.dedup)
    )
    assert len(expected) > 150
    first = found_in(rows, 100, config, tmp_path / "one")
    assert [found[:3] for found in first] == expected
    where = {str(row["doc_id"]): f"{'ab'[i >= 300]}/{'ab'[i >= 300]}#{i % 300 + 1}" for i, row in enumerate(rows)}
    assert all(found[3] == where[found[1]] for found in first)
    # Other chunks, many tasks, words in files, keys in more parts: the same.
    monkeypatch.setattr(tasks, "TASK_BYTES", 3000)
    monkeypatch.setattr(tasks, "MOST_MEMORY_BYTES", 0)
    monkeypatch.setattr(gather, "GATHERED_BYTES", 9000)
    monkeypatch.setattr(gather, "MOST_GATHERED_BYTES", 9000)
    monkeypatch.setattr(tasks, "components", partial(components, part_keys=8))
    again = found_in(rows, 7, config, tmp_path / "two")
    assert again == first
    assert len(list((tmp_path / "two").glob("*.words"))) > 10
    assert len(list((tmp_path / "two").glob("*.gathered.arrow"))) > 10


def test_rows_without_keys_take_no_part(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(50))
    licenses = ["removed", "MIT", "removed", "MIT"]
    rows: list[Row] = [
        {"doc_id": str(i), "text": text, "license": name, "subject": "", "characters": len(text)}
        for i, name in enumerate(licenses)
    ]
    assert found_in(rows, 2, config_of(), tmp_path / "x") == [(3, "1", 1.0, "a/a#2")]
    for row in rows:
        row["license"] = "removed"
    assert found_in(rows, 2, config_of(), tmp_path / "y") == []


def test_subjects_are_protected(tmp_path: Path) -> None:
    body = " ".join(f"word{i}" for i in range(90))
    rows: list[Row] = []
    for i, name in enumerate(["roberts syndrome", "banki syndrome", "roberts syndrome", "banki syndrome"]):
        text = f"Is {name} inherited? {body}"
        rows.append({"doc_id": str(i), "text": text, "license": "MIT", "subject": name, "characters": 700 - i})
    assert [found[:2] for found in found_in(rows, 2, config_of(), tmp_path / "x")] == [(2, "0"), (3, "1")]
