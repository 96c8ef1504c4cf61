"""Filters of one's own and datatrove's by name, and the fast filters inside a datatrove pipeline."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from stages.corpus.filtering.config import CustomFilterConfig, DatatroveFilterConfig, FilterConfig
from stages.corpus.filtering.filters import Filters, Judged
from stages.corpus.filtering.step import FastFilters, datatrove_defaults
from stages.corpus.texts import Texts
from stages.store import InputError
from tests.stages.corpus.corpus_world import sentence
from tests.stages.corpus.filtering.oracle import NoLanguage, datatrove_filters, expected

TEXTS = ["It is long enough to stay.", "Short.", "A word that is secret stands here."]


class _Longer:
    def __init__(self, than: int = 5) -> None:
        self.than = than

    def __call__(self, text: str) -> tuple[bool, str]:
        return len(text) > self.than, f"not longer than {self.than}"


def _no_secrets(text: str, word: str = "secret") -> bool:
    return word not in text


def _fails(text: str) -> bool:
    raise ValueError(f"cannot judge {text}")


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("my_filters")
    module.Longer, module.no_secrets, module.fails = _Longer, _no_secrets, _fails
    module.number, module.answers = 5, lambda text: "yes"
    module.Outer = type("Outer", (), {"inner": staticmethod(_no_secrets)})
    monkeypatch.setitem(sys.modules, "my_filters", module)


def judge(texts: list[str], **filters: Any) -> Judged:
    config = FilterConfig.model_validate({"languages": [], "quality": None, "repetition": None, "c4": None, **filters})
    return Filters(config, NoLanguage()).judge(Texts.of(texts))


@pytest.mark.parametrize(
    ("path", "options", "details"),
    [
        ("my_filters:Longer", {}, {}),
        ("my_filters:Longer", {"than": 10}, {1: "my_filters:Longer not longer than 10"}),
        ("my_filters:no_secrets", {}, {2: "my_filters:no_secrets"}),
        ("my_filters:no_secrets", {"word": "long"}, {0: "my_filters:no_secrets"}),
        ("my_filters:Outer.inner", {}, {2: "my_filters:Outer.inner"}),
    ],
)
def test_a_filter_of_ones_own_says_who_goes(path: str, options: dict[str, Any], details: dict[int, str]) -> None:
    judged = judge(TEXTS, custom=[CustomFilterConfig(path=path, options=options)])
    assert {row: removal.detail for row, removal in judged.removals.items()} == details
    assert all(removal.rule == "custom" for removal in judged.removals.values())
    assert not judged.rewritten.any()


@pytest.mark.parametrize(
    ("path", "options", "says"),
    [
        ("no_such_module:f", {}, "No module named 'no_such_module'"),
        ("my_filters:f", {}, "has no attribute 'f'"),
        ("my_filters:number", {}, "neither a function nor a class"),
        ("my_filters:Longer", {"width": 1}, "cannot be created"),
        ("my_filters:Outer", {}, "cannot be called"),
        ("my_filters:fails", {}, "failed: ValueError"),
        ("my_filters:no_secrets", {"wrong": 1}, "failed: TypeError"),
        ("my_filters:answers", {}, "returned str; it must return a bool"),
    ],
)
def test_a_filter_of_ones_own_that_cannot_be_used_is_named(path: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        judge(TEXTS, custom=[CustomFilterConfig(path=path, options=options)])
    assert path in str(error.value) and says in str(error.value)
    assert not any(text in str(error.value) for text in TEXTS)


def test_datatroves_filters_by_name() -> None:
    named = [
        DatatroveFilterConfig(name="RegexFilter", options={"regex_exp": "secret"}),
        DatatroveFilterConfig(name="C4QualityFilter", options={"min_num_sentences": 1, "min_words_per_line": 2}),
    ]
    judged = judge([*TEXTS, "Two lines stay. \nOne"], datatrove=named)
    assert {row: (removal.rule, removal.detail) for row, removal in judged.removals.items()} == {
        1: ("datatrove_C4QualityFilter", "too_few_sentences"),
        2: ("datatrove_RegexFilter", ""),
    }
    assert judged.texts[3] == "Two lines stay." and judged.rewritten.tolist() == [False, False, False, True]
    assert [judged.texts[i] for i in range(3)] == TEXTS


def test_a_text_that_goes_keeps_what_an_earlier_filter_took() -> None:
    named = [
        DatatroveFilterConfig(name="C4QualityFilter", options={"min_num_sentences": 1, "min_words_per_line": 2}),
        DatatroveFilterConfig(name="RegexFilter", options={"regex_exp": "lines"}),
    ]
    judged = judge(["Two lines stay. \nOne"], datatrove=named)
    assert judged.removals[0].rule == "datatrove_RegexFilter"
    assert judged.texts[0] == "Two lines stay. \nOne" and not judged.rewritten[0]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("GopherQualtyFilter", {}, "GopherQualityFilter"),
        ("BaseFilter", {}, "similar names"),
        ("RegexFilter", {"pattern": "x"}, "cannot be created"),
    ],
)
def test_the_error_for_an_unknown_datatrove_filter_has_similar_names(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=name) as error:
        judge(TEXTS, datatrove=[DatatroveFilterConfig(name=name, options=options)])
    assert says in str(error.value)


def pages() -> list[str]:
    kept = [f"{sentence(i, 20)} {sentence(i + 50, 20)}\n{sentence(i + 100, 20)}\nshort" for i in range(30)]
    kept = [text.replace(" says", ". It says") for text in kept]
    return [item for text in kept for item in (text, text[:90], f"{text}\n{text} {{", " ")]


def documents(texts: list[str]) -> list[Document]:
    return [Document(text=text, id=str(i), metadata={"row": i}) for i, text in enumerate(texts)]


@pytest.mark.parametrize("batch_bytes", [1, 3000, 1 << 20])
def test_the_step_leaves_what_datatroves_three_filters_leave(batch_bytes: int) -> None:
    step = FastFilters(datatrove_defaults(), batch_bytes=batch_bytes)
    left = list(step.run(iter(documents(pages()))))
    slow = datatrove_filters(datatrove_defaults())
    rights = [(i, expected(slow, text)) for i, text in enumerate(pages())]
    assert [(d.metadata["row"], d.text) for d in left] == [(i, right.text) for i, right in rights if not right.rule]
    assert 0 < len(left) < len(rights)
    dropped = [right.rule for _, right in rights if right.rule]
    counts = {name: stat.total for name, stat in step.stats.stats.items()}
    assert counts["total"] == len(rights) and counts["forwarded"] == len(left) and counts["dropped"] == len(dropped)
    assert {name: counts[f"dropped_{name}"] for name in set(dropped)} == {name: dropped.count(name) for name in dropped}


def test_the_step_in_a_pipeline_with_those_that_go(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(pages())))  # fmt: skip # noqa: E501
    gone = JsonlWriter(str(tmp_path / "gone"), compression=None)
    step = FastFilters(datatrove_defaults(), exclusion_writer=gone)
    left = JsonlWriter(str(tmp_path / "left"), compression=None)
    reader = JsonlReader(str(tmp_path), glob_pattern="in.jsonl")
    LocalPipelineExecutor([reader, step, left], logging_dir=str(tmp_path / "log")).run()
    rows = {
        name: [json.loads(line) for path in (tmp_path / name).iterdir() for line in path.read_text().splitlines()]
        for name in ("gone", "left")
    }
    # datatrove's reader leaves blank texts out itself.
    assert len(rows["gone"]) + len(rows["left"]) >= 90
    assert all(
        row["metadata"]["filter_reason"].split("_")[0] in ("quality", "repetition", "c4", "empty")
        for row in rows["gone"]
    )
    assert all("filter_reason" not in row["metadata"] for row in rows["left"])


def test_the_step_takes_lone_surrogates_and_can_be_sent_to_a_worker() -> None:
    step = FastFilters(FilterConfig(languages=[]))
    text = f"{sentence(1)} \ud800 {sentence(2)}"
    assert [d.text for d in step.run(iter(documents([text])))] == [text]
    again = pickle.loads(pickle.dumps(step))
    assert [d.text for d in again.run(iter(documents([text, "short"])))] == [text]
    assert len(pickle.dumps(step)) < 10_000
