"""Fertility is counted as people count, and stands beside GPT-2's recorded figures."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifact import Artifact, ArtifactWriter, Store
from stages.sample.finance import LICENSES as FINANCE
from stages.sample.generate import LICENSES as BIOMED
from stages.tokens.fertility import Fertility, beside_gpt2, count_words, gpt2_record, measure, sample
from stages.tokens.stream import document_files
from stages.tokens.tokenizer import train

PIECES = [" ", "\n", "\t", "a", "two words", "naïve 検査", "\u00a0", "\x85", " 🧪\r\n", ""]
texts = st.lists(st.lists(st.sampled_from(PIECES)).map("".join) | st.text(max_size=9), min_size=1, max_size=8)


@given(texts, st.data())
def test_words_are_runs_of_bytes_without_ascii_white_space(texts: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(texts) - 1))
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(texts, kind)[start:]
        assert count_words(array) == sum(len(text.encode().split()) for text in texts[start:])


def test_a_fertility_is_counted_over_all_batches() -> None:
    tokenizer = train([["the dose of aspirin the dose"] * 9], 300)
    one, two = pa.array(["the dose", "of  aspirin\n"]), pa.array(["naïve", ""])
    found = measure([one, two], tokenizer)
    ids = tokenizer.encode(["the dose", "of  aspirin\n", "naïve", ""])
    assert found == Fertility(8 + 12 + 6, 5, sum(map(len, ids)))
    assert found == measure([one], tokenizer) + measure([two], tokenizer)
    assert found.ratios()["tokens_per_word"] == pytest.approx(found.tokens / 5, abs=5e-5)
    assert measure([pa.array([], pa.string()), pa.array([""])], tokenizer) == Fertility(0, 0, 0)
    assert measure([], tokenizer).ratios() == {"bytes_per_token": 0, "words_per_token": 0, "tokens_per_word": 0}


def test_the_sample_takes_as_much_of_every_file(tmp_path: Path) -> None:
    writer = ArtifactWriter(Store(tmp_path), "corpus/x", "corpus", 1, "0" * 32, {}, {})
    for number in range(4):
        pq.write_table(pa.table({"text": [f"{number}" * 9] * 1000}), writer.file(f"documents/notes/{number}.parquet"))
    (files,) = document_files(writer.commit(), "documents")
    taken = Counter(text[0] for batch in sample(files, 8000) for text in batch.to_pylist())
    assert taken.keys() == set("0123") and set(taken.values()) <= set(range(2000 // 9, 2000 // 9 + 65))
    assert sum(len(batch) for batch in sample(files, 10**9)) == 4000


def test_the_stage_reports_it_by_source(made: Artifact, documents: dict[str, list[str]]) -> None:
    table = {line["source"]: line for line in made.manifest.details["table"]}
    for source, texts in documents.items():
        if not texts:
            continue
        tokens = table[source]["tokens"] - table[source]["documents"]
        words = sum(len(text.encode().split()) for text in texts)
        assert table[source]["words_per_token"] == pytest.approx(words / tokens, abs=5e-5)
        assert table[source]["tokens_per_word"] == pytest.approx(tokens / words, abs=5e-5)
        assert table[source]["gpt2_text"] == "medquad" and table[source]["gpt2_bytes_per_token"] > 4
    assert 0 < made.manifest.metrics["words_per_token"] < 1


def test_every_source_of_the_embedded_samples_has_figures_of_its_own() -> None:
    denied = {"synthetic_feed"}  # no document of it is ever tokenized
    for kind, licenses in (("biomed", BIOMED), ("finance", FINANCE)):
        for source in set(licenses) - denied:
            found = beside_gpt2(source)
            assert found["gpt2_text"] == f"{kind}/{source}"
            assert 3.5 < found["gpt2_bytes_per_token"] < 5.5 and 0.5 < found["gpt2_words_per_token"] < 1
    record = gpt2_record()
    assert beside_gpt2("mine") == {
        "gpt2_text": "medquad",
        "gpt2_bytes_per_token": record["texts"]["medquad"]["all"]["bytes_per_token"],
        "gpt2_words_per_token": record["texts"]["medquad"]["all"]["words_per_token"],
    }


def test_recorded_figures_agree_with_their_counts() -> None:
    for text in gpt2_record()["texts"].values():
        counted = [Fertility(f["bytes"], f["words"], f["tokens"]) for f in (text["all"], *text["sources"].values())]
        assert counted[0] == sum(counted[1:], Fertility(0, 0, 0))
        for figures, found in zip((text["all"], *text["sources"].values()), counted, strict=True):
            assert found.ratios().items() <= figures.items()
