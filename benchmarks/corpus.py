"""The corpus engine beside datatrove, dolma and rensa: speed on one core, equal verdicts, no wrong removal, memory.

    .venv/bin/python benchmarks/corpus.py [--json FILE] [--large] [--medquad FOLDER] [--evaluation FOLDER]

Generates a corpus from MedQuAD, or from a sample of our own where there is no MedQuAD (`base_text.py`), with 20 % exact
and 20 % near copies (`corpus_data.py`), and an environment for the rivals (`.venv-bench`, untimed). Then measures in
processes of their own, after imports and warm-up, ours on 100 MB and the slow rivals, once each between runs of ours,
on its first 10 MB. Megabytes are 10^6 bytes of text. Absolute figures depend on the machine; what counts are ratios of
one run on one text. The value of removals is measured by `corpus_check.py`, which shares no code with any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import corpus_check as check
from base_text import add_options, find_base_text
from child import Child, NotMeasured, run_job
from corpus_data import EXACT, NEAR, Corpus, Planted, make_corpus, prefix_of, read_texts
from corpus_jobs import Job, ratio
from corpus_report import agreement, print_report
from machine import machine, versions
from rich.console import Console
from rivals import rivals_python

HERE = Path(__file__).parent
THRESHOLD = 0.7
WARM_UP_MEGABYTES = 0.5

console = Console(stderr=True)


def main() -> None:
    """Measures, prints the tables, writes the JSON."""
    options = arguments()
    if options.scratch:
        # For this process and for the jobs that it starts.
        tempfile.tempdir = os.environ["TMPDIR"] = str(options.scratch.absolute())
    with tempfile.TemporaryDirectory(prefix="headwater-corpus-") as folder:
        benchmark = Benchmark(options, Path(folder))
        result = benchmark.run()
    print_report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if result["not_measured"].keys() & OURS:
        raise SystemExit("some of Headwater's own figures could not be measured")


PEERS = ("datatrove", "spacy", "xxhash", "rensa", "dolma")
OURS = {"filters", "near", "stage", "two workers", "memory"}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_options(parser)
    parser.add_argument("--megabytes", type=float, default=100, help="what ours and the fast rival are measured on")
    parser.add_argument("--peer-megabytes", type=float, default=10, help="what the slow rivals are measured on")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours and of the fast rival")
    parser.add_argument("--peer-repeats", type=int, default=1, help="runs of the slow rivals")
    parser.add_argument("--pairs", type=int, default=1, help="runs with two workers, between runs of two programs")
    parser.add_argument("--seed", type=int, default=1, help="of the corpus")
    parser.add_argument("--minutes", type=float, default=10, help="1,000 MB only if they end within")
    parser.add_argument("--large", action="store_true", help="1,000 MB however long they take")
    parser.add_argument("--only", action="append", default=[], choices=SECTIONS, help="some of the sections")
    parser.add_argument("--scratch", type=Path, help="where temporary files lie")
    return parser.parse_args()


SECTIONS = ("filters", "near", "stage", "two-workers", "memory", "profile")


class Benchmark:
    """One run: data, rivals, sections."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder
        self.began = time.monotonic()
        self.not_measured: dict[str, str] = {}
        self.sections = set(options.only or SECTIONS)
        self.base = find_base_text(options, folder)
        with console.status("an environment for the rivals ..."):
            self.rivals = rivals_python(HERE.parent / ".venv-bench", HERE / "requirements-peers.txt")
        self._say("environment for the rivals")
        # The environment is not in the ten minutes: it is created once.
        self.began = time.monotonic()
        self.large, self.planted = self._make()
        self.corpus = prefix_of(self.large, folder / "corpus.jsonl", options.megabytes)
        self.prefix = prefix_of(self.corpus, folder / "prefix.jsonl", options.peer_megabytes)
        self.warm_up = prefix_of(self.corpus, folder / "warm-up.jsonl", WARM_UP_MEGABYTES)
        self.texts: list[str] = []

    def run(self) -> dict[str, Any]:
        """All sections; keys as the issue names them, raw figures besides."""
        result: dict[str, Any] = {
            key: None
            for key in (
                "filters_ratio",
                "filters_agreement",
                "near_dedup_ratio",
                "near_dedup_over_rensa",
                "near_dedup_recall",
                "near_dedup_wrongful",
                "stage_ratio",
                "two_workers",
                "memory_growth_10x",
            )
        }
        result |= {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions(("numba", "numpy", "pyarrow"), PEERS, self.rivals),
            "corpus": {
                "generated_from": self.base.name,
                "documents": self.corpus.documents,
                "megabytes": round(self.corpus.megabytes, 2),
                "exact_copies": len(self.planted.pairs(EXACT, self.corpus.documents)),
                "near_copies": len(self.planted.pairs(NEAR, self.corpus.documents)),
                "seed": self.options.seed,
            },
        }
        for name in SECTIONS:
            if name in self.sections:
                result |= getattr(self, f"_{name.replace('-', '_')}")()
        result["not_measured"] = self.not_measured
        result["minutes"] = round((time.monotonic() - self.began) / 60, 2)
        return result

    def _filters(self) -> dict[str, Any]:
        ours = self._ours("filters", self.corpus)
        datatrove = self._peer("datatrove filters", "datatrove_filters", self.prefix)
        dolma = self._peer("dolma taggers", "dolma_tag", self.prefix)
        self._interleave(ours, [datatrove, dolma])
        found = agreement(ours.result, datatrove.result)
        return {
            "filters_ratio": ratio(ours, datatrove),
            "filters_over_dolma": ratio(ours, dolma),
            "filters_agreement": found.get("share"),
            "filters": {job.name: job.report() for job in (ours, datatrove, dolma)} | {"agreement": found},
        }

    def _near(self) -> dict[str, Any]:
        ours = self._ours("near", self.corpus, threshold=THRESHOLD)
        datatrove = self._peer("datatrove MinHash", "datatrove_near", self.prefix)
        rensa = self._peer("rensa C-MinHash", "rensa_near", self.corpus, threshold=THRESHOLD)
        rensa.times = self.options.repeats
        self._interleave(ours, [datatrove, rensa])
        with console.status("every planted pair and every removal, checked ..."):
            checked = self._check(ours, datatrove, rensa)
        self._say("near duplicates checked")
        mine = checked.get(ours.name, {})
        return {
            "near_dedup_ratio": ratio(ours, datatrove),
            "near_dedup_over_rensa": ratio(ours, rensa),
            "near_dedup_recall": mine.get("recall"),
            "near_dedup_wrongful": mine.get("wrongful"),
            "near": {job.name: job.report() | checked.get(job.name, {}) for job in (ours, datatrove, rensa)},
        }

    def _check(self, ours: Job, datatrove: Job, rensa: Job) -> dict[str, dict[str, Any]]:
        """Recall of planted pairs at or above the threshold, and removals below it, by `corpus_check`."""
        texts = self._all_texts()
        pairs = check.similar_pairs(texts, self.planted.pairs(NEAR, self.corpus.documents), THRESHOLD)
        first = [pair for pair in pairs if pair[0] < self.prefix.documents]
        found: dict[str, dict[str, Any]] = {}
        if ours.result:
            removals = [(document, survivor) for document, survivor, _ in ours.result["removals"]]
            removed = {document for document, _ in removals}
            wrong = check.wrongful(texts, removals, THRESHOLD)
            found[ours.name] = {
                **_recalled(pairs, removed, self.planted, self.corpus.documents),
                "wrongful": len(wrong),
                "wrongful_examples": wrong[:20],
            }
        head = texts[: self.prefix.documents]
        for job in (datatrove, rensa):
            if job.result:
                # rensa is greedy: its result for the first documents does not depend on later ones.
                removed = {i for i in job.result["removed"] if i < len(head)}
                found[job.name] = {
                    **_recalled(first, removed, self.planted, len(head)),
                    "wrongful": len(check.unsupported(head, removed, THRESHOLD)),
                    "checked_on": "the rivals' prefix; wrongful: removed, though no document that stays is similar",
                }
        return found

    def _stage(self) -> dict[str, Any]:
        ours = self._stage_job(self.corpus)
        datatrove = self._peer("datatrove chain", "datatrove_chain", self.prefix, warm_up=self.warm_up.path)
        self._interleave(ours, [datatrove])
        details = {key: ours.result.get(key) for key in ("counts", "steps", "digest")}
        return {
            "stage_ratio": ratio(ours, datatrove),
            "stage": {ours.name: ours.report() | details, datatrove.name: datatrove.report()},
        }

    def _two_workers(self) -> dict[str, Any]:
        """One program with two workers, against two programs with one worker side by side, each on a copy of the first
        half: from the start of a process to its end, so that starting counts on both sides.

        The machine's speed drifts by more than what is asked here, so each run of the one program stands between two of
        the others, whose mean it is compared with.
        """
        half = prefix_of(self.large, self.folder / "one.jsonl", self.large.megabytes / 2)
        other = Corpus(self.folder / "other.jsonl", half.documents, half.bytes)
        shutil.copyfile(half.path, other.path)
        try:
            together = [self._programs([half, other], workers=1)]
            two = []
            for _ in range(self.options.pairs):
                two.append(self._programs([self.large], workers=2))
                together.append(self._programs([half, other], workers=1))
        except NotMeasured as reason:
            self.not_measured["two workers"] = str(reason)
            return {}
        finally:
            for corpus in (half, other):
                corpus.path.unlink()
        ratios = [mean(around) / alone for alone, around in zip(two, pairwise(together), strict=True)]
        return {
            "two_workers": median(ratios),
            "two_workers_runs": {"two_workers": two, "two_copies": together, "ratios": ratios},
        }

    def _programs(self, corpora: Sequence[Corpus], workers: int) -> float:
        """Seconds from the start of a program a corpus, all at once, to the end of the last."""
        title = f"programs side by side: {len(corpora)}, workers each: {workers}"
        options = {"evaluation": self.base.evaluation, "workers": workers}
        began = time.monotonic()
        children = [
            Child(Path(sys.executable), HERE / "corpus_ours.py", "program", {"path": corpus.path, **options})
            for corpus in corpora
        ]
        try:
            with console.status(f"{title} ..."):
                for child in children:
                    child.wait_until_ready().go()
                for child in children:
                    child.result()
            seconds = time.monotonic() - began
            self._say(f"{title}: {seconds:.1f} s")
            return seconds
        finally:
            for child in children:
                child.close()

    def _memory(self) -> dict[str, Any]:
        """Peak memory of the stage with one worker at 10, 100 and (by option, or if time remains) 1,000 MB."""
        rows = []
        small = prefix_of(self.corpus, self.folder / "small.jsonl", self.corpus.megabytes / 10)
        for corpus in (small, self.corpus):
            row = self._sampled(corpus)
            if row is None:
                return {}
            rows.append(row)
        growth = None
        expected = 10 * rows[-1]["seconds"] + 20
        left = 60 * self.options.minutes - (time.monotonic() - self.began)
        if self.options.large or expected < left:
            row = self._sampled(self.large)
            if row is not None:
                rows.append(row)
                growth = rows[2]["peak_pss"] / rows[1]["peak_pss"]
        else:
            self.not_measured["growth of memory to 1,000 MB"] = (
                f"would take {expected:.0f} s, {left:.0f} s of {self.options.minutes:g} minutes are left; use --large"
            )
        return {
            "memory_growth_10x": growth,
            "memory_growth_to_100_megabytes": rows[1]["peak_pss"] / rows[0]["peak_pss"],
            "memory": rows,
        }

    def _sampled(self, corpus: Corpus) -> dict[str, Any] | None:
        job = self._stage_job(corpus)
        try:
            self._once(job, memory=True)
        except NotMeasured as reason:
            self.not_measured["memory"] = str(reason)
            return None
        return {"megabytes": round(corpus.megabytes, 1), "documents": corpus.documents} | {
            key: job.result[key] for key in ("seconds", "peak_pss", "peak_anonymous", "steps")
        }

    def _profile(self) -> dict[str, Any]:
        """Nanoseconds a byte of ours, part by part."""
        job = self._ours("profile", self.corpus, threshold=THRESHOLD)
        try:
            self._once(job)
        except NotMeasured as reason:
            self.not_measured["profile"] = str(reason)
            return {}
        return {"profile": job.result["parts"]}

    def _ours(self, job: str, corpus: Corpus, **options: Any) -> Job:
        return Job("Headwater", Path(sys.executable), "corpus_ours.py", job, corpus, options, self.options.repeats)

    def _stage_job(self, corpus: Corpus, workers: int = 1) -> Job:
        return self._ours(
            "stage",
            corpus,
            warm_up=self.warm_up.path,
            evaluation=self.base.evaluation,
            workers=workers,
        )

    def _peer(self, name: str, job: str, corpus: Corpus, **options: Any) -> Job:
        return Job(name, self.rivals, "corpus_peers.py", job, corpus, options, self.options.peer_repeats)

    def _interleave(self, ours: Job, peers: Sequence[Job]) -> None:
        """Runs of all jobs, those of the rivals between those of ours."""
        rounds = max(job.times for job in (ours, *peers))
        for number in range(rounds):
            for place, job in enumerate((ours, *peers)):
                # A rival that runs less often has its turn in a round of its own.
                turn = number if job.times == rounds else (number - place) % rounds
                if turn < job.times and not (job is not ours and job.name in self.not_measured):
                    try:
                        self._once(job)
                    except NotMeasured as reason:
                        self.not_measured[job.job if job is ours else job.name] = str(reason)

    def _once(self, job: Job, memory: bool = False) -> None:
        title = f"{job.name}: {job.job}, {job.corpus.megabytes:.0f} MB"
        with console.status(f"{title} ..."):
            options = {"path": job.corpus.path, **job.options}
            job.result = run_job(job.python, HERE / job.script, job.job, options, memory)
        job.seconds.append(job.result["seconds"])
        self._say(f"{title}: {job.seconds[-1]:.2f} s, {job.corpus.megabytes / job.seconds[-1]:.2f} MB/s")

    def _make(self) -> tuple[Corpus, Planted]:
        """The largest corpus that is needed: the others are its first parts."""
        options = self.options
        megabytes = options.megabytes * (10 if self.sections & {"two-workers", "memory"} else 1)
        with console.status(f"a corpus of {megabytes:g} MB ..."):
            generated = make_corpus(self.base.documents, self.folder / "large.jsonl", megabytes, options.seed)
        self._say(f"a corpus of {megabytes:g} MB: {generated[0].documents:,} documents")
        return generated

    def _all_texts(self) -> list[str]:
        if not self.texts:
            self.texts = read_texts(self.corpus.path)
        return self.texts

    def _say(self, what: str) -> None:
        console.print(f"[dim]{time.monotonic() - self.began:6.0f} s[/dim]  {what}", highlight=False)


def _recalled(pairs: list[tuple[int, int]], removed: set[int], planted: Planted, documents: int) -> dict[str, Any]:
    near, exact = check.recall(pairs, removed), check.recall(planted.pairs(EXACT, documents), removed)
    return {"pairs": near.pairs, "recall": near.share, "exact_recall": exact.share, "removed": len(removed)}


if __name__ == "__main__":
    main()
