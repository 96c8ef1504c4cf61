"""The genomics sample: contigs of made-up bacteria in FASTA."""

from stages.sample.genomics.generate import LICENSES, generate

__all__ = ["LICENSES", "generate"]
