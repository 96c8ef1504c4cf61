"""Fertility is counted in words as usual, and compared with GPT-2's recorded figures."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.sample.biomed.generate import LICENSES as BIOMED
from stages.sample.finance import LICENSES as FINANCE
from stages.store import Artifact, ArtifactWriter, Store
from stages.tokens.fertility import Fertility, count_words, gpt2_comparison, gpt2_record, measure

PIECES = [" ", "\n", "\t", "a", "two words", "naïve 検査", "\u00a0", "\x85", " 🧪\r\n", ""]
texts = st.lists(st.lists(st.sampled_from(PIECES)).map("".join) | st.text(max_size=9), min_size=1, max_size=8)


@given(texts, st.data())
def test_words_are_runs_of_bytes_without_ascii_white_space(texts: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(texts) - 1))
    assert count_words(pa.array([], pa.string())) == 0
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(texts, kind)[start:]
        assert count_words(array) == sum(len(text.encode().split()) for text in texts[start:])


def test_fertilities_add_up_and_have_ratios() -> None:
    total = Fertility(8, 2, 3) + Fertility(12, 3, 5)
    assert total == Fertility(20, 5, 8)
    assert total.ratios() == {"bytes_per_token": 2.5, "words_per_token": 0.625, "tokens_per_word": 1.6}
    assert Fertility(0, 0, 0).ratios() == {"bytes_per_token": 0, "words_per_token": 0, "tokens_per_word": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Four files of 1,000 documents, document n of file f having f + 1 words of n % 7 + 1 letters."""
    writer = ArtifactWriter(Store(tmp_path_factory.mktemp("corpus")), "corpus/x", "corpus", 1, "0" * 32, {}, {})
    for file in range(4):
        texts = [" ".join(["x" * (n % 7 + 1)] * (file + 1)) for n in range(1000)]
        pq.write_table(pa.table({"text": texts}), writer.file(f"documents/notes/{file}.parquet"), row_group_size=300)
    pq.write_table(pa.table({"text": ["of another source"]}), writer.file("documents/notes and more/0.parquet"))
    return writer.commit()


@pytest.mark.parametrize("max_bytes", [1, 8000, 10**9])
def test_as_much_of_every_file_is_measured_with_its_own_tokens(
    corpus: Artifact, max_bytes: int, tmp_path: Path
) -> None:
    table = pa.table({"length": pa.array([1000 * file + n for file in range(4) for n in range(1000)], pa.int64())})
    with pa.ipc.new_file(str(tmp_path / "notes.arrow"), table.schema) as sink:
        sink.write_table(table, max_chunksize=700)
    expected = Fertility(0, 0, 0)
    for file in range(4):
        size = 0
        for n in range(1000):
            if n % 64 == 0 and size >= max_bytes / 4:
                break
            length = (n % 7 + 2) * (file + 1) - 1
            size += length
            expected += Fertility(length, file + 1, 1000 * file + n)
    assert measure(corpus, "notes", tmp_path / "notes.arrow", max_bytes) == expected


def test_the_stage_reports_it_by_source(artifact: Artifact, documents: dict[str, list[str]]) -> None:
    table = {line["source"]: line for line in artifact.manifest.details["table"]}
    for source, texts in documents.items():
        if not texts:
            continue
        tokens = table[source]["tokens"] - table[source]["documents"]
        words = sum(len(text.encode().split()) for text in texts)
        assert table[source]["words_per_token"] == pytest.approx(words / tokens, abs=5e-5)
        assert table[source]["tokens_per_word"] == pytest.approx(tokens / words, abs=5e-5)
        assert table[source]["gpt2_text"] == "medquad" and table[source]["gpt2_bytes_per_token"] > 4
    assert 0 < artifact.manifest.metrics["words_per_token"] < 1


def test_every_source_of_the_embedded_samples_has_figures_of_its_own() -> None:
    denied = {"synthetic_feed"}  # no document of it is ever tokenized
    for kind, licenses in (("biomed", BIOMED), ("finance", FINANCE)):
        for source in set(licenses) - denied:
            found = gpt2_comparison(source)
            assert found["gpt2_text"] == f"{kind}/{source}"
            assert 3.5 < found["gpt2_bytes_per_token"] < 5.5 and 0.5 < found["gpt2_words_per_token"] < 1
    record = gpt2_record()
    assert gpt2_comparison("mine") == {
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
