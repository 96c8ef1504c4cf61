"""The tokens stage beside gigatoken, the loader beside numpy, MosaicML Streaming, LitData and Hugging Face datasets.

    .venv/bin/python benchmarks/tokens.py [--json FILE] [--medquad FOLDER] [--only SECTION]

Generates text (from MedQuAD, or from a sample of our own where there is no MedQuAD), rows and a table of 10^9 rows, and
an environment for the rivals (`.venv-bench-tokens`, untimed). The compared sides take turns: a figure is the median of
the ratios of consecutive turns, with its spread.
Absolute figures depend on the machine; what counts are ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from base_text import add_options, find_base_text
from child import Child, NotMeasured, run_job
from machine import machine, versions
from rich.console import Console
from rivals import rivals_python
from spread import spread
from tokens_numpy import MEMMAP
from tokens_open import BATCH
from tokens_ours import ONE_ARRAY, PLAIN
from tokens_report import TARGETS, print_report

HERE = Path(__file__).parent
OURS = "Headwater"
SECTIONS = ("shards", "loader", "first", "trace")
PEERS = ("mosaicml-streaming", "litdata")
AT = 0.9
"""Where in the run a process begins to read, as a share of it."""

console = Console(stderr=True)


def main() -> None:
    """Measures, prints the tables, writes the JSON."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="headwater-tokens-", dir=options.scratch) as folder:
        # For the jobs too: some rivals do not remove their locks from it.
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        result = Benchmark(options, Path(folder)).run()
    print_report(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if any(name.startswith(OURS) for name in result["not_measured"]):
        raise SystemExit("some of Headwater's own figures could not be measured")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    add_options(parser)
    parser.add_argument("--megabytes", type=float, default=400, help="of text to tokenize")
    parser.add_argument("--trained-on", type=float, default=10, help="megabytes that the 16k BPE is trained on")
    parser.add_argument("--rows", type=int, default=1 << 16, help="rows of 2048 tokens that loaders read")
    parser.add_argument("--table-rows", type=int, default=10**9, help="rows of the run that a process begins in")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--seed", type=int, default=1, help="of the text")
    parser.add_argument("--only", action="append", default=[], choices=SECTIONS, help="some of the sections")
    parser.add_argument("--scratch", type=lambda name: Path(name).absolute(), help="folder that temporary files lie in")
    return parser.parse_args()


class Benchmark:
    """One run: data, rivals, sections."""

    def __init__(self, options: argparse.Namespace, folder: Path):
        self.options, self.folder = options, folder
        self.began = time.monotonic()
        self.not_measured: dict[str, str] = {}
        self.base = find_base_text(options, folder)
        with console.status("an environment for the rivals ..."):
            requirements = HERE / "requirements-token-peers.txt"
            self.rivals = rivals_python(HERE.parent / ".venv-bench-tokens", requirements, beside_ours=True)
            _stand_in_for_torchvision(self.rivals)
        self._say("environment for the rivals")
        # The environment is not in the ten minutes: it is created once.
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        """All sections; keys as the issue names them, raw figures besides."""
        result: dict[str, Any] = dict.fromkeys(TARGETS)
        result |= {
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions(("numpy", "torch", "pyarrow", "datasets", "gigatoken"), PEERS, self.rivals),
        }
        for name in SECTIONS:
            if name in (self.options.only or SECTIONS):
                result |= getattr(self, f"_{name}")()
        result["not_measured"] = self.not_measured
        result["minutes"] = round((time.monotonic() - self.began) / 60, 2)
        return result

    def _shards(self) -> dict[str, Any]:
        """The stage against the encoder that it uses, on one core and on all."""
        options = self.options
        given = {"base": self.base.documents, "megabytes": options.megabytes}
        text = self._make("text", given | {"trained_on": options.trained_on, "seed": options.seed})
        found = {}
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            found[threads] = self._encoded(text, threads)
        return {
            "shards_over_gigatoken": found[1].get("ratio", {}).get("median"),
            "shards_over_gigatoken_all_cores": found[max(found)].get("ratio", {}).get("median"),
            "text": {"generated_from": self.base.name} | {name: text[name] for name in ("megabytes", "documents")},
            "shards": found,
        }

    def _encoded(self, text: Mapping[str, Any], threads: int) -> dict[str, Any]:
        given = {name: text[name] for name in ("store", "corpus", "tokenizer")} | {"threads": threads}
        ours, peer = f"{OURS}, tokens stage", "gigatoken"
        jobs = {
            ours: Child(Path(sys.executable), HERE / "tokens_ours.py", "stage", given),
            peer: Child(Path(sys.executable), HERE / "tokens_peers.py", "gigatoken", given),
        }
        rounds = self._turns(jobs, self.options.rounds, f"{threads} threads")
        if not (rounds[ours] and rounds[peer]):
            return {}
        seconds = {name: [one["seconds"] for one in results] for name, results in rounds.items()}
        documents = rounds[ours][-1]["counts"]["documents"]
        if rounds[ours][-1]["counts"]["tokens"] - documents != rounds[peer][-1]["tokens"]:
            raise SystemExit("the stage and gigatoken do not make as many tokens of the same text")
        return {
            "megabytes_per_second": {
                name: spread([text["megabytes"] / one for one in values]) for name, values in seconds.items()
            },
            "resident": {name: results[-1]["resident"] for name, results in rounds.items()},
            "ratio": spread([theirs / mine for mine, theirs in zip(seconds[ours], seconds[peer], strict=True)]),
        }

    def _loader(self) -> dict[str, Any]:
        """Reading on and on, page cache warm: beside numpy in one process, beside the rivals in processes by turns."""
        folder = self._rows()
        beside = {OURS: Child(Path(sys.executable), HERE / "tokens_ours.py", "beside_numpy", {"folder": folder})}
        near = [one["rates"] for one in self._turns(beside, 3 * self.options.rounds, "beside numpy")[OURS]]
        children = {OURS: Child(Path(sys.executable), HERE / "tokens_ours.py", "loader", {"folder": folder})}
        for name, (job, given) in READERS.items():
            if self._write(job.split("_")[0], folder):
                children[name] = Child(self.rivals, HERE / "tokens_peers.py", job, {"folder": folder, **given})
        rounds = self._turns(children, self.options.rounds, "loaders", before_each=OURS)
        rates = {name: [one["rows_per_second"] for one in results] for name, results in rounds.items() if results}
        found: dict[str, Any] = {"rows": self.options.rows, "readers": {}}
        if near:
            memmap = max(MEMMAP, key=lambda name: median(one[name] for one in near))
            found["ids_over_memmap"] = self._over(near, "ids", memmap)
            found["batch_over_plain_numpy"] = self._over(near, "batch", PLAIN)
            found["ids_over_one_array"] = self._over(near, "ids", ONE_ARRAY)
            found["beside_numpy"] = {name: spread([one[name] for one in near]) for name in near[0]}
        for name, values in rates.items():
            found["readers"][name] = {
                "rows_per_second": spread(values),
                **{key: rounds[name][-1][key] for key in ("anonymous", "resident")},
            }
            ratios = [
                one["before"]["rows_per_second"] / one["rows_per_second"] for one in rounds[name] if one["before"]
            ]
            if ratios:
                found["readers"][name]["ratio"] = spread(ratios)
        return {
            "ids_over_memmap": found.get("ids_over_memmap", {}).get("median"),
            "batch_over_plain_numpy": found.get("batch_over_plain_numpy", {}).get("median"),
            **{f"loader_over_{key}": _over_fastest(found["readers"], word) for key, word in RATIOS.items()},
            "loader": found,
        }

    def _first(self) -> dict[str, Any]:
        """Cold processes up to their first batch: ours and a plain memmap by turns, then the rivals."""
        rows = self.options.table_rows
        step = int(AT * rows) // BATCH
        self._make("table", {"rows": rows, "step": step})
        table = self.folder / "table"
        found: dict[str, Any] = {"table_rows": rows}
        for tensors in (True, False):
            ours = {"folder": table, "samples": rows // BATCH * BATCH, "at": step * BATCH, "tensors": tensors}
            plain = {"path": table / "plain.npy", "tensors": tensors}
            turns = []
            for number in range(self.options.rounds + 1):
                turns.append([self._begin("headwater", ours), self._begin("memmap", plain)])
                if number == 0 or None in turns[-1]:  # the first fills caches of files and of compiled modules
                    turns.pop()
            if turns:
                key = "tensors" if tensors else "arrays"
                mine, theirs = zip(*turns, strict=True)
                found[key] = {
                    OURS: {name: spread([one[name] for one in mine]) for name in mine[0]},
                    "numpy memmap": {name: spread([one[name] for one in theirs]) for name in theirs[0]},
                    "ratio": spread([a["seconds"] / b["seconds"] for a, b in turns]),
                }
                self._say(f"first batch, {key}: {found[key]['ratio']['median']:.2f} of a memmap's")
        return {"first_batch_over_memmap": found.get("tensors", {}).get("ratio", {}).get("median")} | {
            "first": found | {"rivals": self._rivals_begin()}
        }

    def _rivals_begin(self) -> dict[str, Any]:
        folder = self._rows()
        found = {}
        for who in ("streaming", "litdata", "hf_indices"):
            if self._write(who.split("_")[0], folder):
                given = {"folder": folder, "at": int(AT * self.options.rows) // BATCH * BATCH}
                runs = [self._begin(who, given, self.rivals) for _ in range(2)]
                if None not in runs:
                    found[who] = {name: spread([one[name] for one in runs]) for name in runs[0]}
                    self._say(f"first batch, {who}: {found[who]['seconds']['median']:.2f} s")
        return found

    def _begin(self, who: str, options: Mapping[str, Any], python: Path = Path(sys.executable)) -> Any:
        """Seconds of a cold process up to its first batch, and those of them after its imports."""
        command = [str(python), str(HERE / "tokens_first.py"), who, json.dumps(options, default=str)]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stderr
            line = next((line for line in process.stdout if line.startswith("FIRST ")), "")
            seconds = time.perf_counter() - began
            _, errors = process.communicate()
        if not line:
            name = f"{OURS}, first batch" if who == "headwater" else f"{who}, first batch"
            self.not_measured[name] = " | ".join(errors.strip().splitlines()[-3:])[-400:]
            return None
        return {"seconds": seconds, "after_imports": float(line.split()[1])}

    def _trace(self) -> dict[str, Any]:
        """Milliseconds from a step to its documents and back, in a run that is too large to exist."""
        rows = self.options.table_rows
        self._make("table", {"rows": rows, "step": int(AT * rows) // BATCH})
        given = {"folder": self.folder / "table", "samples": rows // BATCH * BATCH}
        job = {f"{OURS}, trace": Child(Path(sys.executable), HERE / "tokens_ours.py", "trace", given)}
        (rounds,) = self._turns(job, self.options.rounds, "traces").values()
        if not rounds:
            return {}
        queries = {name: spread([spent for one in rounds for spent in one[name]]) for name in ("at", "where")}
        return {"trace": {"table_rows": rows, "open": spread([one["open"] for one in rounds]), **queries}}

    def _over(self, rounds: Sequence[Mapping[str, float]], mine: str, theirs: str) -> dict[str, Any]:
        return spread([one[mine] / one[theirs] for one in rounds]) | {"over": theirs}

    def _turns(
        self, children: Mapping[str, Child], rounds: int, what: str, before_each: str | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Rounds of all children by turns; the first, which fills caches, is not counted. One that fails is out.

        With `before_each` that child has its turn before each of the others; its result is `before` in theirs.
        """
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
        left = dict(children)
        try:
            for name, child in children.items():
                with console.status(f"{what}: {name} gets ready ..."):
                    self._or_out(left, name, child.wait_until_ready)
            for number in range(rounds + 1):
                for name in [name for name in left if name != before_each]:
                    before = None
                    for turn in (before_each, name):
                        if turn in left:
                            with console.status(f"{what}, round {number}: {turn} ..."):
                                result = self._or_out(left, turn, left[turn].round)
                            if number and result is not None:
                                found[turn].append(result | {"before": before})
                            before = result
        finally:
            for child in children.values():
                child.end()
        self._say(f"{what}: {rounds} rounds of {', '.join(left)}")
        return {name: results if name in left else [] for name, results in found.items()}

    def _or_out(self, left: dict[str, Child], name: str, act: Any) -> Any:
        try:
            return act()
        except NotMeasured as reason:
            self.not_measured[name] = str(reason)
            del left[name]
            return None

    def _rows(self) -> Path:
        self._make("rows", {"rows": self.options.rows})
        return self.folder / "rows"

    def _write(self, rival: str, folder: Path) -> bool:
        """Has a rival write the rows in its own format, once; whether they exist then."""
        if (folder / FOLDERS[rival]).exists():
            return True
        try:
            with console.status(f"rows as {rival} has them ..."):
                run_job(self.rivals, HERE / "tokens_peers.py", f"make_{rival}", {"folder": folder})
        except NotMeasured as reason:
            self.not_measured[f"{rival}, writing the rows"] = str(reason)
            return False
        self._say(f"rows as {rival} has them")
        return True

    def _make(self, what: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Generates data in a folder of that name, in a process of its own, unless the folder exists."""
        folder = self.folder / what
        if folder.exists():
            return {}
        folder.mkdir()
        with console.status(f"{what} ..."):
            given = {"folder": folder, **options}
            generated = run_job(Path(sys.executable), HERE / "tokens_ours.py", f"make_{what}", given)
        self._say(f"{what} generated")
        return generated

    def _say(self, what: str) -> None:
        console.print(f"[dim]{time.monotonic() - self.began:6.0f} s[/dim]  {what}", highlight=False)


FOLDERS = {"streaming": "mds", "litdata": "litdata", "hf": "hf"}
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    "MosaicML Streaming": ("streaming", {"workers": 0}),
    "MosaicML Streaming, 2 workers": ("streaming", {"workers": 2}),
    "LitData": ("litdata", {"workers": 0}),
    "HF datasets, lists of rows": ("hf_indices", {}),
    "HF datasets, DataLoader": ("hf_loader", {"workers": 0}),
}
"""Name -> (job, options)."""
RATIOS = {"streaming": "MosaicML", "litdata": "LitData", "hf": "HF"}
"""Key's end -> how the names of that rival begin; the fastest of them is what ours is compared with."""


def _over_fastest(readers: Mapping[str, Any], word: str) -> float | None:
    """How many times as fast ours is as a rival in its fastest setting."""
    rows = [row for name, row in readers.items() if name.startswith(word) and "ratio" in row]
    fastest = max(rows, key=lambda row: row["rows_per_second"]["median"], default=None)
    return None if fastest is None else float(fastest["ratio"]["median"])


def _stand_in_for_torchvision(python: Path) -> None:
    """Gives the rivals' environment a torchvision without content: mosaicml-streaming imports it for data sets of
    pictures, and the published builds do not load beside a CPU build of torch."""
    folder = next((python.parent.parent).glob("lib/python*/site-packages")) / "torchvision"
    (folder / "transforms").mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "datasets.py").write_text("VisionDataset = object\n")
    (folder / "transforms" / "__init__.py").touch()
    (folder / "transforms" / "functional.py").write_text("to_tensor = None\n")


if __name__ == "__main__":
    main()
