"""Encodes Arrow arrays of texts: with gigatoken if its ids equal the tokenizer's, else with tokenizers.

gigatoken is forty times as fast as Hugging Face's tokenizers, for the split patterns that it supports. It is used only
after it has given the same ids on texts of this corpus and on a list of difficult ones; see `encoder_for`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stages.store.events import Emit
from stages.tokens.long_texts import WINDOW, can_be_cut, encode_long
from stages.tokens.tokenizer import TextTokenizer

log = logging.getLogger(__name__)

Texts: TypeAlias = pa.StringArray | pa.LargeStringArray
Encoded: TypeAlias = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""ids uint32 [T] of n concatenated texts; offsets int64 [n + 1]: text i is ids[offsets[i]:offsets[i + 1]]."""

COMPARED_BYTES = 128 << 10
"""Text of the corpus on which both encoders are compared: about 25 ms of Hugging Face's encoder."""
COMPARED_DOCUMENT_BYTES = 8 << 10
"""Maximum bytes of one document in the comparison, so that it covers many documents."""

RENEWAL_SECONDS = 8.0
"""CPU time after which a gigatoken tokenizer is replaced. Its cache of words grows by 70 MB per second on random
letters, so this limits it to half a gigabyte. A new tokenizer costs a third of a second."""

TRICKY_TEXTS = (
    "",
    " ",
    "\n",
    "\t \n\r\n   \r x\u00a0\u3000y   ",
    "   leading, trailing   ",
    " " * 50 + "\n" * 50 + "\t" * 50 + "end",
    "1 12 123 1234 12345678901234567890 3.14 ½ ٣٤٥ Ⅷ 1st",
    "don't DON'T I'LL we'Ve 's 'S ’s it's'd",
    "\x00\x01\x07\x1b[0m\x7f\x85\u200b\u200e\u202e\ufeff\ufffd\ue000",
    "caf\u00e9 cafe\u0301 \u1e69 s\u0323\u0307 \ufb01 \u0130i\u0131I",
    "naïve Ωmega Кириллица עברית العربية हिन्दी ไทย 日本語テキスト 한국어 𝒳𝔘",
    "🧪 👩🏽‍🔬 🏳️‍🌈 🇩🇪🇫🇷 ☃️ e\u20dd",
    'snake_case camelCase SHOUT x=y+z; a->b !!?? ... --- *** ((())) {[<>]} \\n "quoted" https://a.b/c?d=e#f',
    "a" * 3000,
    "ACGT" * 500 + "\n" + "MKVLA" * 100,
    "\U0010ffff\ud7ff\ue000 \u0378 \u2028\u2029\u0085",
    "<|endoftext|>",
    "text <|endoftext|> text<|endoftext|><|im_start|>user<|eot_id|></s><s>[INST] <unk><pad> <|endoftext",
)
"""Cases in which encoders have differed: white space, digits, control characters, Unicode, special tokens."""


class Encoder(Protocol):
    """Encodes texts. Thread-safe."""

    name: str

    def encode(self, texts: Texts) -> Encoded:
        """Ids of each text, without special tokens; a special token that is spelled in a text is encoded as text."""


class TokenizersEncoder:
    """Hugging Face's tokenizers: supports any tokenizer, with the library's own threads.

    Documents may have any length if the tokenizer `can_be_cut`; else a document needs a hundred times its size.

    Args:
        window: maximum characters encoded at once.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: TextTokenizer, window: int = WINDOW):
        self._tokenizer = tokenizer
        self._window = window if can_be_cut(tokenizer.content["pre_tokenizer"]) else sys.maxsize
        self._long: Tokenizer | None = None

    def encode(self, texts: Texts) -> Encoded:
        """See `Encoder`."""
        strings = texts.to_pylist()
        short = iter(self._tokenizer.encode([text for text in strings if len(text) <= self._window]))
        found = [next(short) if len(text) <= self._window else self._encode_long(text) for text in strings]
        return _concatenated(found)

    def _encode_long(self, text: str) -> NDArray[np.uint32]:
        if self._long is None:
            self._long = Tokenizer.from_str(self._tokenizer.text_json)
        return encode_long(self._long, text, self._window)


class GigatokenEncoder:
    """gigatoken on the calling thread, directly from Arrow's buffers.

    A gigatoken tokenizer caches words behind a lock: so concurrent threads use different ones, which are pooled. Its
    cache is never cleared, so a tokenizer is replaced after some seconds of work.

    Raises:
        Exception: gigatoken does not support the tokenizer's split pattern or model.
    """

    name = "gigatoken"

    def __init__(self, tokenizer: TextTokenizer):
        self._json = tokenizer.text_json
        self._idle = [(self._load(), 0.0)]

    def encode(self, texts: Texts) -> Encoded:
        """See `Encoder`."""
        try:
            tokenizer, spent = self._idle.pop()
        except IndexError:
            tokenizer, spent = self._load(), 0.0
        started = time.thread_time()
        layout = tokenizer.encode_batch(_awkward_array(texts), parallel=False).layout.to_ListOffsetArray64(True)
        spent += time.thread_time() - started
        if spent < RENEWAL_SECONDS:
            self._idle.append((tokenizer, spent))
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        return np.asarray(layout.content.data, dtype=np.uint32)[: offsets[-1]], offsets

    def _load(self) -> Any:
        from gigatoken import Tokenizer as Gigatoken  # imported here: takes a second, with awkward

        return Gigatoken.from_json(self._json)


def encoder_for(
    tokenizer: TextTokenizer,
    samples: Iterable[str],
    report: Emit,
    make_fast: Callable[[TextTokenizer], Encoder] = GigatokenEncoder,
) -> Encoder:
    """A fast encoder if its ids equal the tokenizer's on `samples` and `TRICKY_TEXTS`, else tokenizers.

    Args:
        tokenizer: the tokenizer, whose ids are the reference.
        samples: texts of the corpus; about `COMPARED_BYTES` are used.
        report: receives an event with the chosen encoder, and a warning with the reason if it is the slow one.
        make_fast: creates the fast encoder; if it raises anything, the slow one is used.
    """
    texts = [*TRICKY_TEXTS, *_spellings(tokenizer), *_first_bytes(samples)]
    try:
        fast = make_fast(tokenizer)
        problem = _difference(fast, tokenizer, texts)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the library is a BaseException
        reason = " ".join(str(error).split())[:300]
        problem = f"the fast encoder does not support this tokenizer ({type(error).__name__}: {reason})"
    chosen: Encoder = TokenizersEncoder(tokenizer) if problem else fast
    report("encoder", name=chosen.name, compared=len(texts), compared_bytes=sum(len(text.encode()) for text in texts))
    if problem:
        message = f"tokens: {problem}; using tokenizers instead: the same ids, about forty times slower"
        report("warning", message=message)
        log.warning("%s", message)
    return chosen


def _difference(encoder: Encoder, tokenizer: TextTokenizer, texts: list[str]) -> str | None:
    """Describes the first text for which an encoder gives other ids than the tokenizer."""
    ids, offsets = encoder.encode(pa.array(texts, pa.string()))
    if len(offsets) != len(texts) + 1:
        return f"{encoder.name} returned ids for {len(offsets) - 1} of {len(texts)} texts"
    for number, expected in enumerate(tokenizer.encode(texts)):
        found = ids[offsets[number] : offsets[number + 1]].tolist()
        if found != expected:
            return f"{encoder.name} gives other ids for the text that begins with {texts[number][:60]!r}"
    return None


def _spellings(tokenizer: TextTokenizer) -> Iterator[str]:
    """Texts that contain the added tokens of this tokenizer."""
    added = sorted(token.content for token in tokenizer.tokenizer.get_added_tokens_decoder().values())
    for first in range(0, len(added), 64):
        some = added[first : first + 64]
        yield "".join(some)
        yield " and ".join(["before", *some, "behind"])


def _first_bytes(samples: Iterable[str]) -> Iterator[str]:
    left = COMPARED_BYTES
    for text in samples:
        yield text[:COMPARED_DOCUMENT_BYTES]
        left -= len(text[:COMPARED_DOCUMENT_BYTES].encode())
        if left <= 0:
            return


def _concatenated(found: list[Any]) -> Encoded:
    lengths = np.fromiter((len(ids) for ids in found), dtype=np.int64, count=len(found))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = np.empty(int(offsets[-1]), dtype=np.uint32)
    for number, ids in enumerate(found):
        joined[offsets[number] : offsets[number + 1]] = ids
    return joined, offsets


def _awkward_array(texts: Texts) -> Any:
    """The same strings as an awkward array over the same bytes, which gigatoken reads without Python strings."""
    import awkward

    wide = pa.types.is_large_string(texts.type)
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64 if wide else np.int32)[texts.offset : texts.offset + len(texts) + 1]
    characters = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    layout = awkward.contents.ListOffsetArray(
        awkward.index.Index64(starts.astype(np.int64)),
        awkward.contents.NumpyArray(characters, parameters={"__array__": "char"}),
        parameters={"__array__": "string"},
    )
    return awkward.Array(layout)
