"""Text to token ids, in whole Arrow arrays: gigatoken where it gives the tokenizer's own ids, else tokenizers.

gigatoken encodes one text at forty times the speed of Hugging Face's tokenizers, for the split patterns that it knows.
It is trusted only after it has given the same ids on texts of this corpus and on a list of nasty ones; see
`encoder_for`.
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
"""ids uint32 [T] of n texts, one behind the other; offsets int64 [n + 1]: text i is ids[offsets[i]:offsets[i + 1]]."""

COMPARED_BYTES = 128 << 10
"""Text of the corpus on which gigatoken must give the tokenizer's ids: about 25 ms of Hugging Face's encoder."""
COMPARED_MOST = 8 << 10
"""Bytes of one document in that comparison, so that there are many different ones."""

RENEWED_SECONDS = 8.0
"""Work of a gigatoken tokenizer after which it is dropped. What it remembers grows with the words that it had to work
out, by 70 MB for a second of that (random letters), so this is half a gigabyte. A new one costs a third of a second."""

BATTERY = (
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
"""Where encoders have been seen to differ: white space, digits, control characters, Unicode, special tokens."""


class Encoder(Protocol):
    """Encodes texts; several threads may call one encoder at the same time."""

    name: str

    def encode(self, texts: Texts) -> Encoded:
        """Ids of each text, without special tokens; a special token's spelling in a text is text."""


class TokenizersEncoder:
    """Hugging Face's tokenizers: any tokenizer, on the library's own threads.

    Documents may be of any length, where the tokenizer `can_be_cut`; else a long one takes a hundred times its size.

    Args:
        window: most characters that are encoded at once.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: TextTokenizer, window: int = WINDOW):
        self._tokenizer = tokenizer
        self._most = window if can_be_cut(tokenizer.content["pre_tokenizer"]) else sys.maxsize
        self._long: Tokenizer | None = None

    def encode(self, texts: Texts) -> Encoded:
        """See `Encoder`."""
        strings = texts.to_pylist()
        short = iter(self._tokenizer.encode([text for text in strings if len(text) <= self._most]))
        found = [next(short) if len(text) <= self._most else self._encode_long(text) for text in strings]
        return _joined(found)

    def _encode_long(self, text: str) -> NDArray[np.uint32]:
        if self._long is None:
            self._long = Tokenizer.from_str(self._tokenizer.text_json)
        return encode_long(self._long, text, self._most)


class GigatokenEncoder:
    """gigatoken on the calling thread, straight from Arrow's buffers.

    A gigatoken tokenizer remembers words, behind a lock: so each thread that encodes at the same time has its own, and
    they are kept for the next call. It never forgets one, so after some seconds of work another takes its place.

    Raises:
        Exception: gigatoken does not know the tokenizer's split pattern or model.
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
        began = time.thread_time()
        layout = tokenizer.encode_batch(_awkward(texts), parallel=False).layout.to_ListOffsetArray64(True)
        spent += time.thread_time() - began
        if spent < RENEWED_SECONDS:
            self._idle.append((tokenizer, spent))
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        return np.asarray(layout.content.data, dtype=np.uint32)[: offsets[-1]], offsets

    def _load(self) -> Any:
        from gigatoken import Tokenizer as Gigatoken  # with awkward it takes a second to import

        return Gigatoken.from_json(self._json)


def encoder_for(
    tokenizer: TextTokenizer,
    samples: Iterable[str],
    report: Emit,
    make_fast: Callable[[TextTokenizer], Encoder] = GigatokenEncoder,
) -> Encoder:
    """A fast encoder if it gives the tokenizer's ids on `samples` and `BATTERY`, else tokenizers.

    Args:
        tokenizer: the tokenizer, whose ids are right by definition.
        samples: texts of the corpus; about `COMPARED_BYTES` are looked at.
        report: told which encoder was chosen, and why in a warning where it is the slow one.
        make_fast: makes the fast one; whatever it raises, it is not used then.
    """
    texts = [*BATTERY, *_spellings(tokenizer), *_some(samples)]
    try:
        fast = make_fast(tokenizer)
        trouble = _difference(fast, tokenizer, texts)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the library is a BaseException
        trouble = (
            f"the fast encoder cannot use this tokenizer ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        )
    chosen: Encoder = TokenizersEncoder(tokenizer) if trouble else fast
    report("encoder", name=chosen.name, compared=len(texts), compared_bytes=sum(len(text.encode()) for text in texts))
    if trouble:
        message = f"tokens: {trouble}; tokenizers encodes instead: the same ids, about forty times slower"
        report("warning", message=message)
        log.warning("%s", message)
    return chosen


def _difference(encoder: Encoder, tokenizer: TextTokenizer, texts: list[str]) -> str | None:
    """The first text that an encoder gives other ids for, in words."""
    ids, offsets = encoder.encode(pa.array(texts, pa.string()))
    if len(offsets) != len(texts) + 1:
        return f"{encoder.name} gave ids for {len(offsets) - 1} of {len(texts)} texts"
    for number, expected in enumerate(tokenizer.encode(texts)):
        found = ids[offsets[number] : offsets[number + 1]].tolist()
        if found != expected:
            return f"{encoder.name} gives other ids for the text that begins with {texts[number][:60]!r}"
    return None


def _spellings(tokenizer: TextTokenizer) -> Iterator[str]:
    """The added tokens of this very tokenizer, inside text."""
    added = sorted(token.content for token in tokenizer.tokenizer.get_added_tokens_decoder().values())
    for first in range(0, len(added), 64):
        some = added[first : first + 64]
        yield "".join(some)
        yield " and ".join(["before", *some, "behind"])


def _some(samples: Iterable[str]) -> Iterator[str]:
    left = COMPARED_BYTES
    for text in samples:
        yield text[:COMPARED_MOST]
        left -= len(text[:COMPARED_MOST].encode())
        if left <= 0:
            return


def _joined(found: list[Any]) -> Encoded:
    lengths = np.fromiter((len(ids) for ids in found), dtype=np.int64, count=len(found))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    joined = np.empty(int(offsets[-1]), dtype=np.uint32)
    for number, ids in enumerate(found):
        joined[offsets[number] : offsets[number + 1]] = ids
    return joined, offsets


def _awkward(texts: Texts) -> Any:
    """The same strings as an awkward array over the same bytes: what gigatoken reads without a Python string each."""
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
