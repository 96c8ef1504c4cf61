"""Words of any length in a tokenizer's training: cut, counted, and reported."""

import json
from pathlib import Path

import pytest
from tokenizers import Regex, pre_tokenizers

from stages.tokens import TokensConfig
from stages.tokens.long_words import MAX_WORD_CHARACTERS, LongWords
from stages.tokens.tokenizer import LLAMA3_SPLIT, train, train_once
from tests.stages.tokens.conftest import Make

MOST = MAX_WORD_CHARACTERS
SPLIT = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated")


def counted(*texts: str) -> tuple[int, int]:
    long = LongWords()
    assert list(long.count([list(texts)], SPLIT)) == [list(texts)]
    return long.words, long.characters


@pytest.mark.parametrize(
    "run", ["a", "é", "日", "-", " ", "\n", "\u3000", "\x1c", "👩\u200d🔬", "\u0301", " \u00a0", "\r\n"]
)
def test_runs_of_one_kind_are_counted_from_the_limit_on(run: str) -> None:
    within = (run * MOST)[:MOST]
    assert counted(within) == (0, 0)
    assert counted("x. ", within + run, "y") == (1, MOST + len(run))


def test_a_word_of_several_runs_is_counted() -> None:
    half = MOST // 2
    assert counted(" " + "-" * half + "\n" * half) == (1, MOST + 1)
    assert counted(" " + "-" * (half - 1) + "\n" * half) == (0, 0)
    assert counted("12" * MOST, "https://" + "a/" * MOST, "word " * MOST) == (0, 0), "many short words"


def test_a_long_run_of_letters_is_trained_on_and_counted_once(tmp_path: Path) -> None:
    run = "acgtgc" * 50_000
    tokenizer = train_once(tmp_path / "trained.json", [["the dose of aspirin"] * 4, [run]], 300)
    assert (tokenizer.long_words.words, tokenizer.long_words.characters) == (1, len(run))
    assert tokenizer.tokenizer.decode(tokenizer.encode([run])[0]) == run
    again = train_once(tmp_path / "trained.json", iter([["never requested"]]), 300)
    assert again.long_words == tokenizer.long_words and again.tokenizer.to_str() == tokenizer.tokenizer.to_str()


def test_the_limit_is_not_part_of_the_tokenizer() -> None:
    steps = json.loads(train([["a" * 2 * MOST]], 300).tokenizer.to_str())["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["Split", "ByteLevel"]


def test_the_stage_reports_long_words(make: Make) -> None:
    artifact = make(
        {"a": ["a short text", "b" * 1000, "c" * 500]}, {}, TokensConfig(vocab_size=300, sequence_length=64)
    )
    assert artifact.manifest.counts["long_words"] == 2
    assert artifact.manifest.counts["long_word_characters"] == 1500
    events, _ = artifact.events().read()
    (message,) = (event["message"] for event in events if event["type"] == "warning")
    assert "2 words of more than 256 characters, 1,500 in all" in message
