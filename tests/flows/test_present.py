"""Tables on terminals of any width."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flows.present import GAP, print_table

WORD = st.text("abcdefghij_", min_size=1, max_size=12)
CELL = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4), st.integers(20, 160))
def test_words_stay_whole_wherever_all_of_them_fit(rows: list[tuple[str, str, str]], width: int) -> None:
    out = io.StringIO()
    print_table(Console(file=out, width=width), "Title", ("set", "n", "value"), rows)
    printed = out.getvalue()
    assert all(len(line) <= width for line in printed.splitlines())
    columns = zip(("set", "n", "value"), *rows, strict=True)
    least = sum(max(len(word) for cell in column for word in cell.split()) for column in columns)
    if least + 3 * GAP <= width:
        assert {word for row in rows for cell in row for word in cell.split()} <= set(printed.split())


def test_a_narrow_terminal_breaks_the_last_column_first() -> None:
    out = io.StringIO()
    print_table(
        Console(file=out, width=40), "Title", ("set", "verdict"), [("held-out synthetic_notes", "below a baseline")]
    )
    assert "held-out synthetic_notes  below a" in out.getvalue()
