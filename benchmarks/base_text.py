"""The documents that benchmarks make their text from: MedQuAD where there is a copy, else a sample of our own."""

from __future__ import annotations

import argparse
import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
SAMPLE_SEED, SAMPLE_MEGABYTES = 2, 20.0
"""Another seed than the recipes' sample, and about as much text as MedQuAD has."""


@dataclass(frozen=True)
class BaseText:
    """Where the documents are, and what they are called beside every figure."""

    name: str
    documents: Path
    """Folder of `*.jsonl.gz` with `text`, `focus`, `url`, `license`."""
    evaluation: Path
    """Folder of `*.jsonl` with question sets, which the corpus stage decontaminates against."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--medquad` and `--evaluation`."""
    parser.add_argument(
        "--medquad",
        type=Path,
        help=f"folder with MedQuAD's *.jsonl.gz (default: {SHARED / 'medquad'} if it exists, else the biomedical "
        f"sample of seed {SAMPLE_SEED})",
    )
    parser.add_argument(
        "--evaluation", type=Path, help="folder with question sets, *.jsonl (default: those that belong to the text)"
    )


def find_base_text(options: argparse.Namespace, folder: Path) -> BaseText:
    """MedQuAD as `options` name it or as it lies beside the repository, else a sample generated in `folder`.

    Raises:
        SystemExit: a folder that the options name has no such files.
    """
    for name, pattern in (("medquad", "*.jsonl.gz"), ("evaluation", "*.jsonl")):
        named = getattr(options, name)
        if named and not any(named.glob(pattern)):
            raise SystemExit(f"--{name} {named}: there is no {pattern} in this folder")
    medquad = options.medquad or SHARED / "medquad"
    if any(medquad.glob("*.jsonl.gz")):
        text = BaseText("MedQuAD", medquad.absolute(), SHARED / "eval")
    else:
        text = _sample(folder / "sample")
    evaluation = options.evaluation or text.evaluation
    if not any(evaluation.glob("*.jsonl")):
        raise SystemExit(f"there are no question sets in {evaluation}: name their folder by --evaluation")
    return BaseText(text.name, text.documents, evaluation.absolute())


def _sample(folder: Path) -> BaseText:
    """The biomedical sample without its planted defects, in MedQuAD's layout."""
    sys.path.insert(0, str(ROOT))
    from stages.sample.biomed import generate

    generate(folder, seed=SAMPLE_SEED, megabytes=SAMPLE_MEGABYTES)
    with (folder / "truth.jsonl").open("rb") as lines:
        planted = {orjson.loads(line)["id"] for line in lines}
    with gzip.open(folder / "sample.jsonl.gz", "wb", compresslevel=1) as out:
        for path in sorted((folder / "documents").glob("*/*.jsonl.gz")):
            for line in gzip.decompress(path.read_bytes()).splitlines():
                record = orjson.loads(line)
                if record["id"] not in planted:
                    fields = {"text": record["text"], "focus": record["group"], "url": record["url"]}
                    out.write(orjson.dumps(fields | {"license": record["license"]}) + b"\n")
    name = f"Headwater's biomedical sample, seed {SAMPLE_SEED}, {SAMPLE_MEGABYTES:g} MB (no MedQuAD here)"
    return BaseText(name, folder, folder / "eval")
