"""Prompts and options become the tokens that training sees, and every option keeps some."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from stages.evaluation.encoding import EncodedQuestion, encode_question
from stages.tokens.tokenizer import TextTokenizer
from tests.stages.evaluation.evaluation_world import World, crossing_tokenizer
from tests.support import EOS, byte_level_tokenizer, examples


def texts(tokenizer: Any, tokens: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(tokens)).replace("Ġ", " ")


def test_without_a_crossing_token_the_context_is_the_prompt(world: World) -> None:
    prompt, options = "Question: the gene?\nAnswer:", [" fever", " a rare disease"]
    found = encode_question(world.tokenizer, prompt, options)
    assert found.context == world.tokenizer(prompt)["input_ids"]
    assert found.options == [world.tokenizer(option)["input_ids"] for option in options]


def test_where_a_token_crosses_all_options_are_scored_from_before_it() -> None:
    tokenizer = crossing_tokenizer()
    found = encode_question(tokenizer, "Answer:", [" kid", " lung", " x"])
    assert texts(tokenizer, found.context) == "Answe"  # "r:" alone, "r" and ":Ġ" with an option
    assert [texts(tokenizer, option) for option in found.options] == ["r: kid", "r: lung", "r: x"]
    assert len(tokenizer("Answer: kid")["input_ids"]) < len(tokenizer("Answer:")["input_ids"]) + 2


def test_without_a_common_token_the_context_is_the_end_of_a_document() -> None:
    tokenizer = crossing_tokenizer()
    found = encode_question(tokenizer, ":", [" kid", " x"])
    assert found.context == [tokenizer.eos_token_id]
    assert [texts(tokenizer, option) for option in found.options] == [": kid", ": x"]


@examples(50)
@given(
    st.text("r: kidl", min_size=1, max_size=6).filter(str.strip),
    st.lists(st.text("r: kidl", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=4),
)
def test_context_and_option_are_the_text_and_no_option_is_empty(prompt: str, options: list[str]) -> None:
    tokenizer = crossing_tokenizer()
    found = encode_question(tokenizer, prompt, [f" {option}" for option in options])
    context = [token for token in found.context if token != tokenizer.eos_token_id]
    for option, tokens in zip(options, found.options, strict=True):
        assert tokens
        assert texts(tokenizer, context + tokens) == f"{prompt} {option}"


@pytest.mark.parametrize("special", [EOS, "<|bos|>"])
def test_the_text_of_a_special_token_is_text_as_in_training(special: str) -> None:
    """With the special tokens, and the BOS in front of a text, of an adopted tokenizer."""
    tokenizer = byte_level_tokenizer(["the liver and the kidney"] * 9, 300)
    tokenizer.add_special_tokens([AddedToken("<|bos|>", special=True, normalized=False)])
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", bos)])
    adopted = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, bos_token="<|bos|>")
    prompt, option = f"the {special} liver:", f" kidney{special}"
    found = encode_question(adopted, prompt, [option])
    own = Tokenizer.from_str(TextTokenizer(tokenizer, EOS, EOS, {}).text_json)
    assert found.context + found.options[0] == own.encode(prompt + option, add_special_tokens=False).ids
    assert not {bos, adopted.eos_token_id} & {*found.context, *found.options[0]}


def test_truncation_keeps_one_context_for_all_options() -> None:
    question = EncodedQuestion(list(range(10)), [[1, 2], [3, 4, 5, 6], list(range(20, 40))])
    assert question.is_longer_than(28) and not question.is_longer_than(29)
    assert question.truncate(29) == question
    assert question.truncate(24) == EncodedQuestion([5, 6, 7, 8, 9], question.options)
    assert question.truncate(8) == EncodedQuestion([9], [[1, 2], [3, 4, 5, 6], list(range(32, 40))])
