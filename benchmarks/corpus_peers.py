"""The rivals' side of `benchmarks/corpus.py`, a job a process: datatrove, dolma, rensa.

datatrove runs in the pipeline's own environment, the others in `.venv-bench`; nothing here imports Headwater.
Annotations are real objects in this module (no postponed evaluation): datatrove reads one to choose its hash.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from child import Work, serve
from corpus_data import read_records, read_texts

WARM_UP_DOCUMENTS = 30


def datatrove_filters(path: str) -> Work:
    """Gopher quality, Gopher repetition and C4 in a chain, defaults, documents in memory.

    Result: `outcomes`, for each document [reason or "", digest of the text as kept].
    """
    from datatrove.data import Document

    documents = [Document(text=item["text"], id=item["id"]) for item in read_records(Path(path))]
    _filtered([Document(text=item.text, id=item.id) for item in documents[:WARM_UP_DOCUMENTS]])

    def work() -> dict[str, Any]:
        kept, reasons = _filtered(documents)
        texts = {document.id: document.text for document in kept}
        return {"kept": texts, "reasons": reasons}

    return _then(work, lambda found: {"outcomes": outcomes(documents, found["kept"], found["reasons"])})


def _filtered(documents: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
    reasons = Reasons()
    stream: Any = iter(documents)
    for step in _datatrove_filters(reasons):
        stream = step.run(stream)
    return list(stream), reasons.found


def _datatrove_filters(reasons: "Reasons | None" = None) -> list[Any]:
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter

    return [
        GopherQualityFilter(exclusion_writer=reasons),
        GopherRepetitionFilter(exclusion_writer=reasons),
        C4QualityFilter(exclusion_writer=reasons),
    ]


class Reasons:
    """Stands where datatrove writes what a filter removes, and notes the reason alone."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def __enter__(self) -> "Reasons":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, document: Any, rank: int = 0) -> None:
        """Records why a document is removed."""
        self.found[document.id] = document.metadata["filter_reason"]


def outcomes(documents: Sequence[Any], kept: dict[str, str], reasons: dict[str, str]) -> list[list[str]]:
    """For each document [reason or "", digest of the text as kept]."""
    return [
        [reasons[document.id], ""]
        if document.id in reasons
        else ["", hashlib.blake2b(kept[document.id].encode(), digest_size=16).hexdigest()]
        for document in documents
    ]


def _then(work: Work, summarize: Any) -> Work:
    """Times the work alone, and makes its result small afterwards."""
    import time

    def timed() -> dict[str, Any]:
        began = time.perf_counter()
        found = work()
        return {"seconds": time.perf_counter() - began} | summarize(found)

    return timed


def datatrove_near(path: str) -> Work:
    """The four steps of MinHash, defaults (14 buckets of 8, 5-grams), documents in memory.

    Result: `removed`, positions of the documents that go.
    """
    from datatrove.data import Document

    _quiet_datatrove()
    documents = [Document(text=item["text"], id=item["id"]) for item in read_records(Path(path))]
    _near_kept(documents[:WARM_UP_DOCUMENTS])

    def work() -> dict[str, Any]:
        return {"kept": _near_kept(documents)}

    return _then(
        work, lambda found: {"removed": [i for i, item in enumerate(documents) if item.id not in found["kept"]]}
    )


def _near_kept(documents: Sequence[Any]) -> set[str]:
    kept: set[str] = set()

    def read(data: Any, rank: int, world_size: int) -> Iterator[Any]:
        yield from documents

    def collect(data: Any, rank: int, world_size: int) -> Iterator[Any]:
        for document in data:
            kept.add(document.id)
            yield document

    with tempfile.TemporaryDirectory(prefix="headwater-minhash-") as folder:
        _minhash(Path(folder), [read], [collect])
    return kept


def _minhash(folder: Path, read: list[Any], write: list[Any]) -> None:
    """The four steps in a row: signatures, buckets, clusters, filter."""
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig()
    signatures, buckets, remove = (str(folder / name) for name in ("signatures", "buckets", "remove"))
    _execute(folder, "signatures", [*read, MinhashDedupSignature(signatures, config)])
    _execute(folder, "buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets)
    _execute(folder, "cluster", [MinhashDedupCluster(buckets, remove, config)])
    _execute(folder, "filter", [*read, MinhashDedupFilter(remove), *write])


def _execute(folder: Path, name: str, pipeline: list[Any], tasks: int = 1) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()


def _quiet_datatrove() -> None:
    from loguru import logger

    logger.remove()


def datatrove_chain(path: str, warm_up: str) -> Work:
    """JSON Lines in, the three filters, exact deduplication (3 steps), MinHash (4 steps), JSON Lines out."""
    _quiet_datatrove()
    _chain(Path(warm_up))
    return lambda: {"kept": _chain(Path(path))}


def _content(document: Any) -> str:
    """What exact copies have in common; datatrove reads this function's annotation."""
    text: str = document.text
    return text


def _chain(path: Path) -> int:
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    with tempfile.TemporaryDirectory(prefix="headwater-chain-") as name:
        folder = Path(name)

        def reader(part: str) -> Any:
            return JsonlReader(str(folder / part))

        def writer(part: str) -> Any:
            return JsonlWriter(str(folder / part), compression=None)

        exact = ExactDedupConfig(content_getter=_content)
        source = JsonlReader(str(path.parent), glob_pattern=path.name)
        _execute(folder, "filters", [source, *_datatrove_filters(), writer("filtered")])
        _execute(folder, "exact-1", [reader("filtered"), ExactDedupSignature(str(folder / "hashes"), exact)])
        _execute(folder, "exact-2", [ExactFindDedups(str(folder / "hashes"), str(folder / "copies"), exact)])
        _execute(
            folder,
            "exact-3",
            [reader("filtered"), ExactDedupFilter(str(folder / "copies"), exact), writer("distinct")],
        )
        _minhash(folder, [reader("distinct")], [writer("kept")])
        return sum(file.read_bytes().count(b"\n") for file in (folder / "kept").glob("*.jsonl"))


def rensa_near(path: str, threshold: float, permutations: int = 128) -> Work:
    """`CMinHashDeduplicator` over 5-word shingles by Python's regular expressions, which are in the time.

    Result: `removed`, positions of the documents that go; it compares signatures and verifies nothing.
    """
    import rensa

    texts = read_texts(Path(path))
    word = re.compile(r"\w+")

    def removed(texts: list[str]) -> list[int]:
        deduplicator = rensa.CMinHashDeduplicator(threshold=threshold, num_perm=permutations, seed=42)
        found: list[int] = []
        for start in range(0, len(texts), 1000):
            entries = []
            for i, text in enumerate(texts[start : start + 1000], start):
                words = word.findall(text.lower())
                entries.append((str(i), [" ".join(words[k : k + 5]) for k in range(max(1, len(words) - 4))]))
            found += [start + k for k, added in enumerate(deduplicator.add_pairs(entries)) if not added]
        return found

    removed(texts[:WARM_UP_DOCUMENTS])
    return lambda: {"removed": removed(texts)}


def dolma_tag(path: str) -> Work:
    """`dolma tag` with the Gopher and C4 taggers, one process, the whole command: it reads and writes gzip."""
    import gzip

    import dolma

    folder = Path.cwd()
    documents = folder / "corpus" / "documents"
    documents.mkdir(parents=True)
    packed = documents / "part.json.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes(), 1))
    command = [str(Path(sys.executable).with_name("dolma")), "tag", "--documents", str(packed)]
    command += ["--taggers", "gopher_v2", "c4_v2", "--experiment", "tagged", "--processes", "1"]
    assert dolma

    def work() -> dict[str, Any]:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        files = list((folder / "corpus" / "attributes").rglob("*.gz"))
        if done.returncode or not files:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            return {"not_measured": f"dolma tag ended with {done.returncode} and {len(files)} files: {last[0][:200]}"}
        return {"tagged": sum(gzip.decompress(file.read_bytes()).count(b"\n") for file in files)}

    return work


if __name__ == "__main__":
    serve({job.__name__: job for job in (datatrove_filters, datatrove_near, datatrove_chain, rensa_near, dolma_tag)})
