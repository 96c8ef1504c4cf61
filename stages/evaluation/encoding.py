"""Prompts and options as tokens.

The text is encoded as training encodes documents: no BOS, and the text of a special token (`<|endoftext|>`) is text.

As in lm-eval, prompt and option are encoded together, and spaces at the prompt's end count to the option. Where a token
crosses from prompt into option, lm-eval cuts it off the option, which may have no token left. Here the context ends
before it instead, for all options of the question: each is then scored on the same remaining characters of the prompt
and its own, so that their log-likelihoods stay comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EncodedQuestion:
    """The tokens of one question."""

    context: list[int]
    """Not empty."""
    options: list[list[int]]
    """The tokens of each option that follow the context; none is empty."""

    def is_longer_than(self, max_length: int) -> bool:
        """Whether `truncate` removes tokens."""
        return len(self.context) + max(map(len, self.options)) > max_length + 1

    def truncate(self, max_length: int) -> EncodedQuestion:
        """The question in a model's context of `max_length` tokens; an option's last token is only a target.

        Options keep their last tokens. The context is truncated on the left as in lm-eval, but by the longest option,
        so that all options have the same one.
        """
        options = [option[-max_length:] for option in self.options]
        return EncodedQuestion(self.context[-(max_length + 1 - max(map(len, options))) :], options)


def encode_question(tokenizer: Any, prompt: str, options: Sequence[str]) -> EncodedQuestion:
    """Encodes a prompt that is not blank, and the options (with the space before them) that may follow it.

    The context is the tokens with which the prompt alone and the prompt with each option begin; without any it is EOS.

    Args:
        tokenizer: a fast tokenizer of transformers.
    """
    texts = [prompt.rstrip(), *(prompt + option for option in options)]
    encoded = tokenizer(
        texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
    )["input_ids"]
    shared = _common_prefix(encoded)
    context = encoded[0][:shared] or [tokenizer.eos_token_id]
    return EncodedQuestion(context, [ids[shared:] for ids in encoded[1:]])


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    for place, tokens in enumerate(zip(*sequences, strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(map(len, sequences))
