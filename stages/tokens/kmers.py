"""k-mer ids of text in one compiled pass: the ids of `tokenizer_kmers`, about a hundred times as fast."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.tokens.byte_level import byte_characters
from stages.tokens.config import KmersConfig


class KmerEncoder:
    """Encodes Arrow arrays of texts without a Python object per text. Thread-safe."""

    name = "kmers"

    def __init__(self, config: KmersConfig):
        self._letters, self._k = config.letters, config.k

    def encode(self, texts: pa.StringArray | pa.LargeStringArray) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of n texts without nulls, and their offsets; see `kmer_ids`."""
        _, places, content = texts.buffers()
        width = np.int64 if pa.types.is_large_string(texts.type) else np.int32
        offsets = np.frombuffer(places, width)[texts.offset : texts.offset + len(texts) + 1] if places else np.zeros(1)
        data = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
        return kmer_ids(data, offsets.astype(np.int64), self._letters, self._k)


def kmer_ids(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], letters: str, k: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of n texts under the k-mer tokenizer; see `stages.tokens.tokenizer_kmers` for their layout.

    Releases the GIL. Needs four bytes per byte of text, besides the result.

    Args:
        data: the texts' bytes.
        offsets: int64 [n + 1], the start of each text in `data`, and the end of the last.
        letters: the alphabet, distinct ASCII letters.
        k: letters per token.

    Returns:
        (ids uint32 [T], offsets of the texts in them int64 [n + 1]).
    """
    ids = np.empty(int(offsets[-1] - offsets[0]), np.uint32)
    places = np.zeros(len(offsets), np.int64)
    _compiled()(data, offsets, *_tables(letters, k), len(letters), k, ids, places)
    return ids[: places[-1]].copy(), places


@cache
def _tables(letters: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Index of each byte among the letters, -1 for others [256]; id of each byte [256]; id of the first word of each
    length from 2 on [k + 1]."""
    number = np.full(256, -1, np.int64)
    number[list(letters.encode())] = np.arange(len(letters))
    characters = byte_characters()
    place = {character: index for index, character in enumerate(sorted(characters), start=1)}
    byte_ids = np.array([place[character] for character in characters], np.int64)
    sizes = [0, 0, *(len(letters) ** size for size in range(2, k + 1))]
    return number, byte_ids, 257 + np.cumsum([0, *sizes[:-1]])[: k + 1]


@cache
def _compiled() -> Callable[..., Any]:
    """The compiled `_encode`. numba is imported here, since reading tokens imports this module but does not compile."""
    import numba

    compiled: Callable[..., Any] = numba.njit(cache=True, nogil=True)(_encode)
    return compiled


def _encode(data, offsets, number, byte_ids, first_ids, radix, k, ids, places):  # type: ignore[no-untyped-def]
    """Fills `ids` (uint32) and the offsets of each text in them, `places` (int64); both must be long enough."""
    written = np.int64(0)
    for text in range(len(offsets) - 1):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            code, size = number[data[at]], 1
            if code >= 0:
                while size < k and at + size < end and number[data[at + size]] >= 0:
                    code = code * radix + number[data[at + size]]
                    size += 1
            ids[written] = byte_ids[data[at]] if size == 1 else first_ids[size] + code
            written += 1
            at += size
        places[text + 1] = written
