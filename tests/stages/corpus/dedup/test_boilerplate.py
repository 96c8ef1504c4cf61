from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.corpus.config import EditConfig
from stages.corpus.dedup.block_counts import BlockCounts
from stages.corpus.dedup.boilerplate import edge_blocks, strip
from stages.corpus.kernels.characters import CODE_POINTS, lower_words
from stages.corpus.texts import Texts
from tests.stages.corpus.corpus_world import hash64, sentence
from tests.support import examples

Key = tuple[str, tuple[str, ...]]
"""A block as the plain twin names it: `line` or `paragraph`, and its words."""


def words_of(text: str) -> tuple[str, ...]:
    lower = lower_words()
    folded = (
        c.lower() if c < "\x80" else chr(lower[ord(c)]) if ord(c) < CODE_POINTS and lower[ord(c)] >= 0x80 else c
        for c in text
    )
    return tuple("".join(folded).split())


def key_of(kind: str, lines: list[str], least: int) -> Key | None:
    words = words_of("\n".join(lines))
    return (kind, words) if words and len(" ".join(words)) >= least else None


def paragraphs_of(lines: list[str]) -> list[list[int]]:
    runs = itertools.groupby(range(len(lines)), key=lambda i: bool(lines[i].strip()))
    return [list(run) for filled, run in runs if filled]


def plain_blocks(text: str, config: EditConfig) -> set[Key]:
    lines, depth = text.split("\n"), config.boilerplate_edge_lines
    filled = [line for line in lines if line.strip()]
    edges = filled[:depth] + (filled[-depth:] if depth else [])
    found = {key_of("line", [line], config.boilerplate_minimum_characters) for line in edges}
    if config.boilerplate_paragraph_characters:
        found |= {
            key_of("paragraph", [lines[i] for i in run], config.boilerplate_paragraph_characters)
            for run in paragraphs_of(lines)
        }
    return {key for key in found if key}


def hash_of(key: Key) -> int:
    """Hash of one block, from a text that holds nothing else."""
    alone = EditConfig(
        boilerplate_edge_lines=int(key[0] == "line"),
        boilerplate_minimum_characters=1,
        boilerplate_paragraph_characters=int(key[0] == "paragraph"),
    )
    hashes, _ = edge_blocks(Texts.of([" ".join(key[1])]), alone)
    return int(hashes[0])


def plain_strip(text: str, known: set[Key], kept: set[Key], config: EditConfig) -> tuple[str, int]:
    lines, depth = text.split("\n"), config.boilerplate_edge_lines
    filled = [i for i, line in enumerate(lines) if line.strip()]
    gone: set[int] = set()
    count = 0
    for run in paragraphs_of(lines):
        least = config.boilerplate_paragraph_characters
        if least and key_of("paragraph", [lines[i] for i in run], least) in known - kept:
            gone |= set(run)
            count += 1
    for edge in (filled[:depth], filled[::-1][:depth]):
        for i in edge:
            if i not in gone:
                if key_of("line", [lines[i]], config.boilerplate_minimum_characters) not in known:
                    break
                gone.add(i)
                count += 1
    rest = [i for i in filled if i not in gone]
    if not gone or not rest or sum(len(lines[i]) for i in gone) > config.boilerplate_maximum_share * len(text):
        return text, 0
    out: list[str] = []
    for i in range(rest[0], rest[-1] + 1):
        before = [j for j in filled if j < i]
        if i not in gone and not (i not in filled and before[-1] in gone):
            out.append(lines[i])
    return "\n".join(out), count


PIECES = [
    "",
    "",
    " \t",
    "\u2003\u3000\x85",
    "Home page, terms of use",
    "  home  PAGE,\xa0terms of use\r",
    "home page, terms of us",
    "homepage,terms of use",
    "É",
    "e\u0301",
    "İstanbul ΣΑΣ σας",
    "😀 𝒳 \U000e0041",
    "\x00\x00",
    "\x00",
    "ab\u2028cd",
    "x" * 40,
    "X" * 41,
    "abcdefg",
    "abcdefg hijklmn",
    "abcdefghijklmn",
    "無間",
]
texts = st.lists(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=12)), max_size=9).map("\n".join), max_size=5
)
configs = st.builds(
    EditConfig,
    boilerplate_edge_lines=st.sampled_from([0, 1, 2, 3, 10**9]),
    boilerplate_minimum_characters=st.integers(1, 9),
    boilerplate_paragraph_characters=st.integers(0, 9),
    boilerplate_maximum_share=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
)


@examples(50)
@given(texts, configs)
@example(["", "\n", "a\n\na\n\n"], EditConfig(boilerplate_minimum_characters=1, boilerplate_paragraph_characters=1))
def test_blocks_are_those_of_the_plain_twin(found: list[str], config: EditConfig) -> None:
    hashes, starts = edge_blocks(Texts.of(found), config)
    assert len(starts) == len(found) + 1 and starts[0] == 0 and starts[-1] == len(hashes)
    for i, text in enumerate(found):
        mine = hashes[starts[i] : starts[i + 1]].tolist()
        assert mine == sorted({hash_of(key) for key in plain_blocks(text, config)})


def test_blocks_of_different_words_have_different_hashes() -> None:
    keys = {
        key
        for text in [*PIECES, *(sentence(i, 5) for i in range(500))]
        for key in (key_of("line", [text], 1), key_of("paragraph", [text], 1))
        if key
    }
    assert len({hash_of(key) for key in keys}) == len(keys) > 1000


@examples(50)
@given(texts, configs, st.data())
def test_texts_are_stripped_as_by_the_plain_twin(found: list[str], config: EditConfig, data: st.DataObject) -> None:
    keys = sorted({key for text in found for key in plain_blocks(text, config)})
    known = set(data.draw(st.lists(st.sampled_from(keys), unique=True))) if keys else set()
    keepers = {key: data.draw(st.integers(0, 2)) for key in sorted(known)}
    table = sorted((hash_of(key), keeper) for key, keeper in keepers.items())
    hashes = np.array(table, np.uint64).reshape(-1, 2)
    batch = Texts.of(found)
    groups = np.arange(len(found), dtype=np.uint64) % np.uint64(4)
    stripped = strip(batch, hashes, config, groups)
    wanted = [
        plain_strip(text, known, {key for key in known if keepers[key] == i % 4}, config)
        for i, text in enumerate(found)
    ]
    assert [(stripped.texts[i], int(n)) for i, n in enumerate(stripped.lines)] == wanted
    assert stripped.changed.tolist() == [n > 0 for _, n in wanted]
    again = strip(batch, hashes, config, groups, edge_blocks(batch, config))
    assert again.texts.data.tobytes() == stripped.texts.data.tobytes()


def test_broken_utf8_stays_inside_its_text() -> None:
    rng = random.Random(5)
    config = EditConfig(boilerplate_minimum_characters=1, boilerplate_paragraph_characters=1)
    raw = [bytes(rng.choice(b"a \n\xc3\xa9\xe2\x80\xf0\x9f\xff") for _ in range(rng.randrange(12))) for _ in range(500)]
    hashes, starts = edge_blocks(Texts.of(raw), config)
    for i, text in enumerate(raw):
        assert np.array_equal(hashes[starts[i] : starts[i + 1]], edge_blocks(Texts.of([text]), config)[0])
    known = np.stack([np.unique(hashes)[::2]] * 2, axis=1)
    whole = strip(Texts.of(raw), known, config)
    assert [whole.texts.bytes_of(i) for i in range(500)] == [
        strip(Texts.of([text]), known, config).texts.bytes_of(0) for text in raw
    ]


Row = tuple[str, list[str], str]
"""A document: source, text's lines, group."""


def batches_of(rows: list[Row], config: EditConfig, size: int, calls: list[int]):
    """The rows as `BlockCounts` takes them, `size` documents of a source at a time; notes each time it is called."""

    def batches() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        calls.append(1)
        for source in sorted({row[0] for row in rows}):
            mine = [row for row in rows if row[0] == source]
            for start in range(0, len(mine), size):
                part = mine[start : start + size]
                groups = np.array([hash64(group) for _, _, group in part], np.uint64)
                yield source, *edge_blocks(Texts.of(["\n".join(lines) for _, lines, _ in part]), config), groups

    return batches


def plain_boilerplate(rows: list[Row], sources: list[str], config: EditConfig) -> dict[str, list[list[int]]]:
    found = [(source, plain_blocks("\n".join(lines), config), group) for source, lines, group in rows]
    out = {}
    for source in sources:
        mine = [blocks for name, blocks, _ in found if name == source]
        least = config.boilerplate_minimum_fraction * len(mine)
        out[source] = sorted(
            [hash_of(key), min(hash64(group) for _, blocks, group in found if key in blocks)]
            for key in set().union(*mine)
            if len({group for _, blocks, group in found if key in blocks}) >= config.boilerplate_minimum_groups
            and sum(key in blocks for blocks in mine) >= least
        )
    return out


rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.lists(st.sampled_from(["one line", "two lines", "three lines", "four lines", ""]), max_size=6),
        st.sampled_from(["g", "h", "i", "j"]),
    ),
    max_size=30,
)


@examples(50)
@given(rows, st.integers(2, 4), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(1, 7))
def test_boilerplate_needs_groups_and_a_share_of_its_source(
    found: list[Row], least: int, fraction: float, size: int
) -> None:
    config = EditConfig(
        boilerplate_minimum_groups=least,
        boilerplate_minimum_fraction=fraction,
        boilerplate_minimum_characters=4,
        boilerplate_paragraph_characters=9,
    )
    sources = ["a", "b", "empty"]
    boilerplate = BlockCounts(sources, config, 1 << 20).boilerplate(batches_of(found, config, size, []))
    assert {source: blocks.tolist() for source, blocks in boilerplate.items()} == plain_boilerplate(
        found, sources, config
    )


def test_little_memory_takes_more_rounds_and_finds_the_same() -> None:
    config = EditConfig(boilerplate_minimum_groups=3, boilerplate_minimum_fraction=0, boilerplate_minimum_characters=1)
    rng = random.Random(3)
    documents: list[Row] = [
        (rng.choice("ab"), [f"line {int(rng.paretovariate(0.5)) % 900} of it" for _ in range(6)], f"group {i % 40}")
        for i in range(1500)
    ]
    wanted = plain_boilerplate(documents, ["a", "b"], config)
    assert len(wanted["a"]) > 30
    calls: dict[int, list[int]] = {1 << 14: [], 1 << 16: [], 1 << 24: []}
    for memory, called in calls.items():
        found = BlockCounts(["a", "b"], config, memory).boilerplate(batches_of(documents, config, 100, called))
        assert {source: blocks.tolist() for source, blocks in found.items()} == wanted
    rounds = [len(called) for called in calls.values()]
    assert rounds[0] > rounds[1] > rounds[2] == 2


def test_a_block_that_cannot_fit_into_memory_is_an_error() -> None:
    config = EditConfig(boilerplate_minimum_groups=1000)
    documents: list[Row] = [("a", ["the same line everywhere"], str(i)) for i in range(2000)]
    with pytest.raises(MemoryError, match="memory_megabytes"):
        BlockCounts(["a"], config, 1 << 10).boilerplate(batches_of(documents, config, 100, []))


FOOTER = "Copyright Example Health Library, all rights reserved."


def test_footers_go_and_headings_of_one_subject_stay() -> None:
    config = EditConfig()
    documents: list[Row] = []
    for i in range(40):
        lines = [sentence(i), "", sentence(i + 500)]
        documents.append(("a" if i % 2 else "b", [*lines, FOOTER], f"subject {i % 12}"))
        documents.append(("a", ["What is one disease about?", *lines], "one disease"))
    found = BlockCounts(["a", "b"], config, 1 << 20).boilerplate(batches_of(documents, config, 7, []))
    page = f"{sentence(1)}\n{sentence(2)}"
    cases = {
        f"{page}\n\n{FOOTER}\n": (page, 1),
        f"{FOOTER}\n\n{page}": (page, 1),
        f"{FOOTER.upper()}\r\n\n{page}": (page, 1),
        f"What is one disease about?\n{page}": (f"What is one disease about?\n{page}", 0),
        f"{page}\n{page}\n{FOOTER}\n{page}\n{page}": (f"{page}\n{page}\n{FOOTER}\n{page}\n{page}", 0),
        f"{FOOTER}\nIt says little.": (f"{FOOTER}\nIt says little.", 0),
        "": ("", 0),
    }
    for source in ("a", "b"):
        stripped = strip(Texts.of(cases), found[source], config)
        assert [(stripped.texts[i], int(n)) for i, n in enumerate(stripped.lines)] == list(cases.values())


def test_paragraphs_go_from_the_middle_with_their_blank_line() -> None:
    config = EditConfig(boilerplate_paragraph_characters=80)
    disclaimer = "This page is no medical advice.\nAsk a doctor before you change what you take, how much, or when."
    documents: list[Row] = [
        ("a", [*(sentence(50 * i + j) for j in range(4)), "", disclaimer, "", sentence(50 * i + 9)], f"subject {i}")
        for i in range(12)
    ]
    found = BlockCounts(["a"], config, 1 << 20).boilerplate(batches_of(documents, config, 5, []))["a"]
    before, behind = "\n".join(sentence(j) for j in range(4)), "\n".join(sentence(j) for j in range(10, 14))
    wrapped = disclaimer.replace(" ", "\n", 3)
    cases = [f"{before}\n\n{wrapped}\n\n\n{behind}", f"{before}\n{disclaimer}\n{behind}"]
    groups = np.array([1, 1], np.uint64)
    for one in (strip(Texts.of(cases), found, config), strip(Texts.of(cases), found, config, groups)):
        assert one.texts[0] == f"{before}\n\n{behind}"
        assert one.texts[1] == cases[1]
        assert one.lines.tolist() == [1, 0]


def test_a_paragraph_stays_in_one_group_and_a_line_in_none() -> None:
    config = EditConfig(boilerplate_paragraph_characters=80)
    shared = " ".join(sentence(7).split()[:20])
    documents: list[Row] = [
        ("a", [sentence(50 * i), "", shared, "", sentence(50 * i + 9), FOOTER], f"subject {i}") for i in range(12)
    ]
    found = BlockCounts(["a"], config, 1 << 20).boilerplate(batches_of(documents, config, 5, []))["a"]
    groups = np.array([hash64(group) for _, _, group in documents], np.uint64)
    stripped = strip(Texts.of(["\n".join(lines) for _, lines, _ in documents]), found, config, groups)
    texts = [stripped.texts[i] for i in range(12)]
    assert [i for i, text in enumerate(texts) if shared in text] == [int(groups.argmin())]
    assert not any(FOOTER in text for text in texts)
