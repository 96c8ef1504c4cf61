"""A tokenizer for biological sequences: k letters of an alphabet per token, and single bytes for everything else.

A run of letters is split every k from its beginning; the rest at its end is one shorter token. Any other byte (N, a
lower-case letter, a line break, a part of a character) is its own token. So every text has one encoding and decodes to
exactly its bytes. It consists of standard components of `tokenizers` (byte-level characters, a split, a word table), so
that transformers and vLLM can load it.

Ids: 0 is `<|endoftext|>`; 1 to 256 are the bytes, in the order of their byte-level characters; then the words of 2
letters in the order of the alphabet, those of 3, and so on to k.
"""

from __future__ import annotations

from itertools import product

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from stages.tokens.byte_level import byte_characters
from stages.tokens.config import KmersConfig
from stages.tokens.tokenizer import EOS, EOS_ID, TextTokenizer


def kmer_vocabulary(letters: str, k: int) -> list[str]:
    """All tokens in the order of their ids, in byte-level characters."""
    words = ("".join(word) for size in range(2, k + 1) for word in product(letters, repeat=size))
    return [EOS, *sorted(byte_characters()), *words]


def kmer_tokenizer(config: KmersConfig) -> TextTokenizer:
    """The tokenizer of an alphabet and a k, without training."""
    vocabulary = {token: index for index, token in enumerate(kmer_vocabulary(config.letters, config.k))}
    # Never used, since every byte is in the vocabulary; the library requires an unknown token.
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS))
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    inside = "[" + "".join(f"\\x{ord(letter):02x}" for letter in config.letters) + "]"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
            pre_tokenizers.Split(Regex(f"{inside}{{1,{config.k}}}|(?!{inside})."), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    found = TextTokenizer(tokenizer, EOS, EOS, {})
    assert found.eos_id == EOS_ID
    return found
