"""Long words in a tokenizer's training: they are cut, and counted.

A word is what the split of the tokenizer gives: a run of letters, of white space, of other characters. The trainer
searches a whole word for every merge in it, so a word takes time by the square of its length: 25,000 letters 2 s,
100,000 letters 49 s. Encoding has no such limit: both encoders take a time proportional to a word's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from tokenizers.pre_tokenizers import PreTokenizer

MAX_WORD_CHARACTERS = 256
"""At most 1,024 bytes. Words, lines of dashes and sentences without spaces are shorter, so ordinary text is trained on
as it is; random letters in words of this length take about as long as the same letters in words of eight."""

_SPACE = r"\t-\r \x{85}\p{Z}"
_MAY_BE_LONG = f"[{_SPACE}]{{{MAX_WORD_CHARACTERS // 2}}}|[^{_SPACE}]{{{MAX_WORD_CHARACTERS // 2}}}"
"""Every text with a long word matches: a word has at most one run of white space and one of other characters, and one
character before them."""


@dataclass
class LongWords:
    """Words that are longer than `MAX_WORD_CHARACTERS`."""

    words: int = 0
    characters: int = 0
    """Of these words together."""

    def count(self, texts: Iterable[list[str]], split: PreTokenizer) -> Iterator[list[str]]:
        """The batches of texts, unchanged; each is counted before it is passed on."""
        for batch in texts:
            for index in pc.indices_nonzero(pc.match_substring_regex(pa.array(batch, pa.large_string()), _MAY_BE_LONG)):
                for word, _ in split.pre_tokenize_str(batch[index.as_py()]):
                    if len(word) > MAX_WORD_CHARACTERS:
                        self.words += 1
                        self.characters += len(word)
            yield batch
