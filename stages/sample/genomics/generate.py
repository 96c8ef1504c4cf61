"""Writes the genomics sample: contigs of made-up bacteria, with structure of a kind that real genomes have.

The parts of a contig, and the context that a model needs to predict them:

- spacers: a chain of bases with the species' own content of G and C: one base of context;
- genes on either strand: a start, codons by the species' own usage, a stop: contexts of a few bases, better with the
  reading frame;
- mobile elements: copies, with mutations, of a few families that all species share: contexts of about ten bases
  predict them, except for the bases after a mutation;
- satellites: a unit that occurs nowhere else, repeated in tandem with mutations. Counts of short contexts cannot
  predict a new one; a model that looks back by one unit can copy it.

Planted on top are the defects of real files: lower case where repeats are masked, gaps of N, copies, Windows line
ends, a record without sequence, one with line numbers in it, and a source whose licence does not allow its use.
"""

from __future__ import annotations

import gzip
import random
from dataclasses import dataclass, field
from itertools import accumulate, product
from pathlib import Path
from typing import Any

from stages.sample.planted import check_size
from stages.sample.writing import write_rest

LICENSES = {
    "synthetic_isolates": "CC0-1.0",
    "synthetic_metagenome": "CC-BY-4.0",
    "synthetic_customer": "LicenseRef-proprietary",
}
"""The sources and their licences. FASTA has no field for a licence: recipes set it, and deny the last."""

SHARES = {"synthetic_isolates": 0.6, "synthetic_metagenome": 0.3, "synthetic_customer": 0.1}
"""Each source's share of the bases."""

FILES = 3
"""Files in each source's folder: compressed, compressed, and plain with Windows line ends."""

SPECIES, FAMILIES = 6, 12
SATELLITE_UNIT = 32
"""Bases of a satellite's unit."""

PARTS = {"gene": 0.38, "satellite": 0.4, "mobile": 0.12, "spacer": 0.1}
"""Probability of each part at every place of a contig."""

MUTATIONS = {"mobile": 0.05, "satellite": 0.02}
"""Share of the bases that differ from the family's, or the unit's."""

PLANTED = {"soft_masked": 0.1, "gap": 0.05, "exact_duplicate": 0.03}
"""Share of the contigs with each defect. Duplicates are new contigs."""

README = """\
SYNTHETIC DATA

Everything in this folder is synthetic: sequences of no organism, made by a seeded generator for testing a data
pipeline.

documents/<source>/*.fna[.gz]   FASTA, three sources, each under its own licence
truth.jsonl                     what was planted in which record

Made with seed {seed}, {megabytes} megabytes.
"""

_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
_STOPS = ("TAA", "TAG", "TGA")
_CODONS = [codon for codon in map("".join, product("ACGT", repeat=3)) if codon not in _STOPS]


@dataclass(frozen=True)
class Species:
    """What the genomes of one made-up species have in common."""

    name: str
    codon_usage: list[float]
    """Cumulative weights of `_CODONS`."""
    next_base: dict[str, list[float]]
    """Cumulative weights of A, C, G, T after each base."""


@dataclass(eq=False)
class Contig:
    """One record to be written."""

    source: str
    species: str
    bases: str
    repeats: list[tuple[int, int]]
    """Where satellites and mobile elements lie, [first, end)."""
    id: str = ""
    planted: list[dict[str, Any]] = field(default_factory=list)


class ContigGenerator:
    """Makes contigs from one random generator; the same generator state gives the same contigs."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self.species = [self._new_species(number) for number in range(SPECIES)]
        self.families = [self._random_bases(rng.randrange(150, 250)) for _ in range(FAMILIES)]

    def contig(self, source: str) -> Contig:
        """A contig of 3,000 to 9,000 bases, about."""
        rng = self._rng
        species = rng.choice(self.species)
        bases: list[str] = []
        repeats: list[tuple[int, int]] = []
        size, goal = 0, rng.randrange(3000, 9000)
        make = {"gene": self._gene, "satellite": self._satellite, "mobile": self._mobile, "spacer": self._spacer}
        while size < goal:
            (kind,) = rng.choices(list(PARTS), list(PARTS.values()))
            for part in (self._spacer(species, 40), make[kind](species)):
                bases.append(part)
                size += len(part)
            if kind in MUTATIONS:
                repeats.append((size - len(bases[-1]), size))
        return Contig(source, species.name, "".join(bases), repeats)

    def _new_species(self, number: int) -> Species:
        rng = self._rng
        gc = rng.uniform(0.35, 0.65)
        usage = [rng.random() ** 3 for _ in _CODONS]
        content = {"A": 1 - gc, "C": gc, "G": gc, "T": 1 - gc}
        chain = {
            base: list(accumulate(weight * rng.uniform(0.6, 1.4) for weight in content.values())) for base in content
        }
        return Species(f"Exemplum synthesis {'abcdefghij'[number % 10]}{number}", list(accumulate(usage)), chain)

    def _random_bases(self, count: int) -> str:
        return "".join(self._rng.choices("ACGT", k=count))

    def _spacer(self, species: Species, most: int = 160) -> str:
        rng = self._rng
        bases = rng.choice("ACGT")
        for _ in range(rng.randrange(10, most)):
            bases += rng.choices("ACGT", cum_weights=species.next_base[bases[-1]])[0]
        return bases

    def _gene(self, species: Species) -> str:
        rng = self._rng
        codons = rng.choices(_CODONS, cum_weights=species.codon_usage, k=rng.randrange(60, 220))
        return self._either_strand(f"ATG{''.join(codons)}{rng.choice(_STOPS)}")

    def _mobile(self, species: Species) -> str:
        return self._either_strand(self._mutate(self._rng.choice(self.families), MUTATIONS["mobile"]))

    def _satellite(self, species: Species) -> str:
        unit = self._random_bases(SATELLITE_UNIT)
        return self._mutate(unit * self._rng.randrange(8, 20), MUTATIONS["satellite"])

    def _either_strand(self, bases: str) -> str:
        return bases.translate(_COMPLEMENT)[::-1] if self._rng.random() < 0.5 else bases

    def _mutate(self, bases: str, rate: float) -> str:
        rng = self._rng
        return "".join(rng.choice("ACGT") if rng.random() < rate else base for base in bases)


def generate(folder: Path, *, seed: int = 1, megabytes: float = 3.0) -> dict[str, Any]:
    """Writes the sample to ``folder`` and returns its counts. The same seed and size give the same bytes.

    Existing files of the same names are replaced; ``folder`` should hold nothing else.

    Args:
        megabytes: 10^6 bases over all sources, about; at least 0.1.
    """
    check_size(megabytes)
    # Seeding with a string hashes it with SHA-512: independent of PYTHONHASHSEED.
    rng = random.Random(f"genomes {seed}")
    generator = ContigGenerator(rng)
    contigs: dict[str, list[Contig]] = {}
    for source, share in SHARES.items():
        budget = megabytes * 1e6 * share
        contigs[source] = []
        while budget > 0:
            contigs[source].append(generator.contig(source))
            budget -= len(contigs[source][-1].bases)
    _plant(rng, [contig for source in list(SHARES)[:-1] for contig in contigs[source]], contigs)
    counts = _write(folder, rng, contigs)
    rows = [row for source in contigs for contig in contigs[source] for row in contig.planted]
    rows += [
        {"source": "synthetic_isolates", "id": "broken-empty", "kind": "empty"},
        {"source": "synthetic_isolates", "id": "broken-numbered", "kind": "numbered"},
    ]
    readme = README.format(seed=seed, megabytes=f"{megabytes:g}")
    return write_rest(folder, counts, rows, {}, SPECIES + FAMILIES, readme)


def _plant(rng: random.Random, pool: list[Contig], contigs: dict[str, list[Contig]]) -> None:
    """Plants each defect in contigs of its own."""
    total = len(pool)
    rng.shuffle(pool)
    chosen = {kind: [pool.pop() for _ in range(max(1, round(share * total)))] for kind, share in PLANTED.items()}
    for contig in chosen["soft_masked"]:
        for first, end in contig.repeats:
            contig.bases = contig.bases[:first] + contig.bases[first:end].lower() + contig.bases[end:]
        contig.planted.append({"kind": "soft_masked", "bases": sum(end - first for first, end in contig.repeats)})
    for contig in chosen["gap"]:
        place, size = rng.randrange(500, 2500), rng.randrange(20, 120)
        contig.bases = contig.bases[:place] + "N" * size + contig.bases[place + size :]
        contig.planted.append({"kind": "gap", "bases": size})
    for original in chosen["exact_duplicate"]:
        copy = Contig(original.source, original.species, original.bases, original.repeats)
        copy.planted.append({"kind": "exact_duplicate", "of": original})
        contigs[original.source].append(copy)


def _write(folder: Path, rng: random.Random, contigs: dict[str, list[Contig]]) -> dict[str, dict[str, Any]]:
    """Numbers each source's contigs in a random order and writes them; returns counts by source."""
    counts = {}
    for source, found in contigs.items():
        rng.shuffle(found)
        for number, contig in enumerate(found):
            contig.id = f"{source.removeprefix('synthetic_')}-{number:05d}"
    for source, found in contigs.items():
        for contig in found:
            for row in contig.planted:
                row |= {"source": source, "id": contig.id} | ({"of": row["of"].id} if "of" in row else {})
        (folder / "documents" / source).mkdir(parents=True, exist_ok=True)
        for part in range(FILES):
            records = found[part * len(found) // FILES : (part + 1) * len(found) // FILES]
            width = (60, 70, 80)[part]
            text = "".join(_fasta(f"{c.id} {c.species}, contig {c.id[-5:]}", c.bases, width) for c in records)
            if source == "synthetic_isolates" and part == 0:
                text += _fasta("broken-empty no sequence", "", width)
                text += ">broken-numbered copied from a page with line numbers\n" + "".join(
                    f"{60 * line + 1:>9} ACGTTGCAAC\n" for line in range(4)
                )
            _write_file(folder / "documents" / source / f"{part:03d}.fna", text, plain=part == FILES - 1)
        size = sum(len(contig.bases) for contig in found)
        counts[source] = {"license": LICENSES[source], "documents": len(found), "bytes": size}
    return counts


def _fasta(header: str, bases: str, width: int) -> str:
    lines = [bases[first : first + width] for first in range(0, len(bases), width)]
    return "\n".join([f">{header}", *lines]) + "\n"


def _write_file(path: Path, text: str, plain: bool) -> None:
    """Writes gzip without name and time, which differ between runs; or plain text with Windows line ends."""
    if plain:
        path.write_bytes(text.replace("\n", "\r\n").encode())
        return
    with (
        path.with_suffix(".fna.gz").open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as file,
    ):
        file.write(text.encode())
