"""A batch of texts with some of them replaced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Marks = NDArray[np.bool_]


@kernel
def replace_texts(
    data: Bytes, offsets: Places, source: Bytes, places: Places, wanted: Marks
) -> tuple[Bytes, Places, Marks]:
    """Texts of which the wanted ones are replaced by others.

    Args:
        data, offsets: n texts.
        source, places: replacement of text i: `source[places[i, 0]:places[i, 1]]`.
        wanted: which texts are replaced.

    Returns:
        The bytes and offsets of all texts, and which of them changed.
    """
    n = len(offsets) - 1
    new_offsets, changed = np.zeros(n + 1, np.int64), np.zeros(n, np.bool_)
    for text in range(n):
        size = offsets[text + 1] - offsets[text]
        if wanted[text]:
            new_size = places[text, 1] - places[text, 0]
            changed[text] = new_size != size
            if new_size == size:
                before, after = data[offsets[text] : offsets[text + 1]], source[places[text, 0] : places[text, 1]]
                different = np.uint8(0)
                for i in range(len(before)):
                    different |= before[i] ^ after[i]
                changed[text] = different != 0
            size = new_size
        new_offsets[text + 1] = new_offsets[text] + size
    new = np.empty(new_offsets[n], np.uint8)
    for text in range(n):
        begin, end = new_offsets[text], new_offsets[text + 1]
        before, after = data[offsets[text] : offsets[text + 1]], new[begin:end]
        if changed[text]:
            before = source[places[text, 0] : places[text, 1]]
        for i in range(len(after)):
            after[i] = before[i]
    return new, new_offsets, changed
