"""Near duplicates of texts in memory: what `benchmarks/corpus.py` measures, and tests of the corpus compare with."""

from __future__ import annotations

import numpy as np

from stages.corpus.config import DedupConfig
from stages.corpus.dedup.near.candidates import components
from stages.corpus.dedup.near.verify import NearCopy, WordLists, near_copies
from stages.corpus.kernels.minhash import band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.texts import Texts


def near_duplicates_of(texts: Texts, config: DedupConfig) -> list[NearCopy]:
    """Near copies among texts, earlier ones preferred; subjects are not protected."""
    words, starts = word_hashes(texts.data, texts.offsets)
    grams, gram_starts = ngram_hashes(words, starts, config.ngram_size)
    keys = band_hashes(grams, gram_starts, config.bands, config.band_rows, config.seed)
    rows, _ = components(len(texts), config.bands, lambda band: keys[band])
    rows = np.sort(rows)
    candidates = WordLists(words, starts[rows], starts[rows + 1])
    copies = near_copies(candidates, WordLists.empty(len(rows)), keys[:, rows], config)
    places = rows.tolist()
    return [NearCopy(places[copy.document], places[copy.survivor], copy.similarity) for copy in copies]
